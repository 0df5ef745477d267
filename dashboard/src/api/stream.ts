/** The one event stream of the page: reads `/v1/stream` into the query cache, for as long as the page is open. */
import type { QueryClient } from '@tanstack/react-query';

import { applyLive } from './live';
import { keys } from './queries';
import type { Live } from './types';

export type Connection = 'connecting' | 'live' | 'lost';

const KINDS: readonly Live['kind'][] = ['moment', 'session', 'plan', 'execution', 'sandbox', 'host'];
/** News of this many milliseconds are drawn together. */
const BATCH_MS = 80;
const RECONNECT_MS = [1_000, 2_000, 5_000, 10_000];

/** Opens the stream; `report` is told each change of its state. Returns what closes it. */
export function openStream(client: QueryClient, report: (state: Connection) => void): () => void {
  let source: EventSource | null = null;
  let reopen: number | undefined;
  let failures = 0;
  const news = newsQueue(client);

  const open = () => {
    source = new EventSource('/v1/stream');
    source.onopen = () => {
      failures = 0;
      report('live');
      // Whatever happened while nobody listened is in the answers, not in the stream.
      void client.invalidateQueries();
    };
    source.onerror = () => {
      report('lost');
      // The browser itself retries a broken connection, but gives up on an answer like 401 or 503.
      if (source?.readyState !== EventSource.CLOSED) return;
      void client.invalidateQueries({ queryKey: keys.host });
      reopen = window.setTimeout(open, RECONNECT_MS[Math.min(failures, RECONNECT_MS.length - 1)]);
      failures += 1;
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (event: MessageEvent<string>) => {
        news.add(JSON.parse(event.data) as Live);
      });
    }
  };

  open();
  return () => {
    window.clearTimeout(reopen);
    news.close();
    source?.close();
  };
}

/**
 * Applies events in order and in batches, never while an answer is under way: it could have been written before the
 * event and would undo it.
 */
function newsQueue(client: QueryClient): { add: (live: Live) => void; close: () => void } {
  let waiting: Live[] = [];
  let timer: number | undefined;

  const flush = () => {
    timer = undefined;
    if (client.isFetching() > 0) {
      timer = window.setTimeout(flush, BATCH_MS);
      return;
    }
    const batch = waiting;
    waiting = [];
    for (const live of batch) applyLive(client, live);
  };

  return {
    add: (live) => {
      waiting.push(live);
      timer ??= window.setTimeout(flush, BATCH_MS);
    },
    close: () => {
      window.clearTimeout(timer);
    },
  };
}
