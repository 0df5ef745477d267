import type { components } from './schema';

type Problem = components['schemas']['Problem'];

/** What sandboxd (or the network) said instead of an answer. `status` is 0 when nothing answered at all. */
export class RequestError extends Error {
  readonly status: number;
  readonly hint: string;

  constructor(message: string, status: number, hint: string) {
    super(message);
    this.name = 'RequestError';
    this.status = status;
    this.hint = hint;
  }
}

/** GET `path` of our own origin, with the cookie. Throws RequestError for anything but a 2xx answer. */
export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { signal, credentials: 'same-origin', headers: { Accept: 'application/json' } });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new RequestError('sandboxd does not answer.', 0, 'Is it running? Start it with: ephemeral up');
  }
  if (!response.ok) throw await asRequestError(response);
  return (await response.json()) as T;
}

async function asRequestError(response: Response): Promise<RequestError> {
  const fallback = `sandboxd answered ${response.status} ${response.statusText}`.trim();
  try {
    const problem = (await response.json()) as Partial<Problem>;
    const message = [problem.title, problem.detail].filter(Boolean).join(': ');
    return new RequestError(message || fallback, response.status, problem.hint ?? '');
  } catch {
    return new RequestError(fallback, response.status, '');
  }
}
