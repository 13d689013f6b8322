// Stands in for libraries that no panel here uses.
export default {};
export const loader = { config() {}, init: async () => ({}) };
export const faro = {};
export const Editor = () => null;
export const DiffEditor = () => null;
export const useMonaco = () => null;
export const initializeFaro = () => null;
export const getWebInstrumentations = () => [];
export const LogLevel = {};
export const BaseTransport = class {};
