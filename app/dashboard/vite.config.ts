// Builds the dashboard into build/dashboard, which the API serves; called by `make dashboard`.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type Plugin } from 'vite';

const out = '../../build/dashboard';

/** A `.gz` beside every file of text: the API sends that where the browser takes it. */
function packed(): Plugin {
  return {
    name: 'packed',
    closeBundle() {
      for (const name of readdirSync(out, { recursive: true }) as string[]) {
        if (/\.(js|css|html|svg)$/.test(name)) {
          const path = join(out, name);
          writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
        }
      }
    },
  };
}

export default defineConfig({
  plugins: [svelte(), packed()],
  // No inline data: the content security policy allows only files of our own.
  build: {
    outDir: out,
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The graph and the editor, each loaded when it is asked for.
    chunkSizeWarningLimit: 700,
  },
  server: {
    proxy: {
      '/v1': {
        target: process.env.CSE_API ?? 'http://127.0.0.1:8420',
        changeOrigin: true,
        ws: true,
      },
    },
  },
});
