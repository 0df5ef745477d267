import {
  type InfiniteData,
  QueryClient,
  type UseInfiniteQueryResult,
  type UseQueryResult,
  useInfiniteQuery,
  useQuery,
} from '@tanstack/react-query';

import { getJson, RequestError } from './fetch';
import type { Execution, Host, Moment, Page, PlanRecord, Sandbox, Session } from './types';

const PAGE_SIZE = 100;

/** Cache keys. `live.ts` writes the stream's news to the same keys. */
export const keys = {
  host: ['host'] as const,
  sessions: ['sessions'] as const,
  /** One session that is too old to be in the list. */
  session: (session: string) => ['session', session] as const,
  sandboxes: ['sandboxes'] as const,
  moments: (session: string) => ['moments', session] as const,
  plans: (session: string) => ['plans', session] as const,
  /** Executions of one session, or of all. */
  executions: (session: string | null) => ['executions', session] as const,
};

export function createQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        // The stream says when something changed, and a reconnect refetches everything.
        staleTime: Infinity,
        refetchOnWindowFocus: false,
        // A refusal stays a refusal; what did not answer may be starting.
        retry: (failures, error) => !(error instanceof RequestError && error.status > 0) && failures < 2,
      },
    },
  });
}

export function useHost(): UseQueryResult<Host> {
  return useQuery({ queryKey: keys.host, queryFn: ({ signal }) => getJson<Host>('/v1/host', signal) });
}

export function useSandboxes(): UseQueryResult<Page<Sandbox>> {
  return useQuery({
    queryKey: keys.sandboxes,
    queryFn: ({ signal }) => getJson<Page<Sandbox>>('/v1/sandboxes', signal),
  });
}

export function useSessions(): UseInfiniteQueryResult<InfiniteData<Page<Session>>> {
  return usePages<Session>(keys.sessions, '/v1/sessions', {});
}

export function useSession(session: string, enabled: boolean): UseQueryResult<Session> {
  return useQuery({
    queryKey: keys.session(session),
    queryFn: ({ signal }) => getJson<Session>(`/v1/sessions/${encodeURIComponent(session)}`, signal),
    enabled,
  });
}

export function useExecutions(session: string | null): UseInfiniteQueryResult<InfiniteData<Page<Execution>>> {
  return usePages<Execution>(keys.executions(session), '/v1/executions', session === null ? {} : { session });
}

/** All of a session's moments: these, like its plans, come on one page. */
export function useMoments(session: string): UseQueryResult<Page<Moment>> {
  return useQuery({
    queryKey: keys.moments(session),
    queryFn: ({ signal }) => getJson<Page<Moment>>(`/v1/sessions/${encodeURIComponent(session)}/moments`, signal),
  });
}

export function usePlans(session: string): UseQueryResult<Page<PlanRecord>> {
  return useQuery({
    queryKey: keys.plans(session),
    queryFn: ({ signal }) => getJson<Page<PlanRecord>>(`/v1/sessions/${encodeURIComponent(session)}/plans`, signal),
  });
}

/** Items of every page loaded so far, in the server's order. */
export function itemsOf<T>(data: InfiniteData<Page<T>> | undefined): T[] {
  return data?.pages.flatMap((page) => page.items) ?? [];
}

function usePages<T>(
  queryKey: readonly unknown[],
  path: string,
  parameters: Record<string, string>,
): UseInfiniteQueryResult<InfiniteData<Page<T>>> {
  return useInfiniteQuery({
    queryKey,
    queryFn: ({ pageParam, signal }) => getJson<Page<T>>(pagePath(path, parameters, pageParam), signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next,
  });
}

function pagePath(path: string, parameters: Record<string, string>, before: string | null): string {
  const query = new URLSearchParams({ ...parameters, limit: String(PAGE_SIZE) });
  if (before !== null) query.set('before', before);
  return `${path}?${query}`;
}
