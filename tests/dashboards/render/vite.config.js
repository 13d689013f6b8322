// One plain script, so that Chromium can open the page from a file. What no panel needs (an editor, maps) is left out of it.
import { fileURLToPath } from 'node:url';

const nothing = fileURLToPath(new URL('./src/nothing.js', import.meta.url));

export default {
  base: './',
  esbuild: { jsx: 'automatic' },
  resolve: {
    alias: [
      { find: /^(monaco-editor|@monaco-editor\/react)(\/.*)?$/, replacement: nothing },
      { find: /^@grafana\/faro-web-sdk$/, replacement: nothing },
    ],
  },
  define: { 'process.env.NODE_ENV': '"production"' },
  build: {
    target: 'chrome114',
    minify: false,
    reportCompressedSize: false,
    cssCodeSplit: false,
    rollupOptions: {
      input: fileURLToPath(new URL('./src/main.jsx', import.meta.url)),
      output: { format: 'iife', inlineDynamicImports: true, entryFileNames: 'panels.js', assetFileNames: 'panels[extname]' },
      onwarn: () => {},
    },
  },
};
