// One plain script, so that Chromium can open the page from a file. What no panel needs (an editor, telemetry) is left out of it.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const nothing = fileURLToPath(new URL('./src/nothing.js', import.meta.url));
const unused = {
  name: 'unused',
  setup(bundle) {
    const names = /^(monaco-editor|@monaco-editor\/react|@grafana\/faro-web-sdk)(\/|$)/;
    bundle.onResolve({ filter: names }, () => ({ path: nothing }));
  },
};

const { outputFiles } = await build({
  entryPoints: { panels: 'src/main.jsx' },
  outdir: 'dist',
  bundle: true,
  write: false,
  format: 'iife',
  target: 'chrome114',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"' },
  plugins: [unused],
});
for (const { path, text } of outputFiles) {
  mkdirSync(dirname(path), { recursive: true });
  // esbuild reads `default` of a CommonJS package as Node does in a .mjs file; Grafana's files expect it as other bundlers read it.
  writeFileSync(path, text.replace(/(__toESM\(require_\w+\(\)), 1\)/g, '$1)'));
}
