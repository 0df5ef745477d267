import react from '@vitejs/plugin-react';
import { loadEnv } from 'vite';
import { defineConfig } from 'vitest/config';

export default defineConfig(({ mode }) => ({
  plugins: [react()],
  build: {
    outDir: '../sandboxd/ephemeral_sandboxd/dashboard',
    emptyOutDir: true,
    // Nothing inline: the page's content security policy allows scripts, styles and images of its own origin only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // `npm run dev` shows what a running sandboxd tells. Cookies know no ports: open the address that `ephemeral up`
  // printed once, then http://127.0.0.1:5173.
  server: {
    host: '127.0.0.1',
    proxy: {
      '/v1': {
        target: `http://127.0.0.1:${loadEnv(mode, '.', 'EPHEMERAL_').EPHEMERAL_SANDBOXD_PORT ?? '8789'}`,
        changeOrigin: true,
      },
    },
  },
  test: { include: ['src/**/*.test.{ts,tsx}'], restoreMocks: true },
}));
