/** What one event of the stream changes in the cache. Pure, but for `applyLive` which writes it there. */
import type { InfiniteData, QueryClient } from '@tanstack/react-query';

import { keys } from './queries';
import type { Execution, Live, Moment, Page, PlanRecord, Sandbox, Session } from './types';

type Pages<T> = InfiniteData<Page<T>>;

export function applyLive(client: QueryClient, live: Live): void {
  if (live.host) client.setQueryData(keys.host, live.host);
  if (live.session) {
    const session = live.session;
    client.setQueryData<Pages<Session>>(keys.sessions, (pages) => pages && withNewest(pages, session));
  }
  if (live.execution) {
    const execution = live.execution;
    for (const key of [keys.executions(null), keys.executions(execution.session)]) {
      client.setQueryData<Pages<Execution>>(key, (pages) => pages && withNewest(pages, execution));
    }
  }
  if (live.moment) {
    const moment = live.moment;
    client.setQueryData<Page<Moment>>(keys.moments(moment.session), (page) => page && withMoment(page, moment));
  }
  if (live.plan) {
    const plan = live.plan;
    client.setQueryData<Page<PlanRecord>>(keys.plans(plan.session), (page) => page && withItem(page, plan));
  }
  if (live.sandbox) {
    const sandbox = live.sandbox;
    client.setQueryData<Page<Sandbox>>(keys.sandboxes, (page) => page && withSandbox(page, sandbox));
  }
}

/** `item` replaces the one of its id where that stands, else it becomes the first of the first page. */
export function withNewest<T extends { id: string }>(pages: Pages<T>, item: T): Pages<T> {
  const known = pages.pages.some((page) => page.items.some((other) => other.id === item.id));
  return {
    ...pages,
    pages: pages.pages.map((page, index) =>
      known || index === 0 ? withItem(page, item, known) : page,
    ),
  };
}

function withItem<T extends { id: string | number }>(page: Page<T>, item: T, replaceOnly = false): Page<T> {
  const index = page.items.findIndex((other) => other.id === item.id);
  if (index >= 0) return { ...page, items: page.items.with(index, item) };
  return replaceOnly ? page : { ...page, items: [item, ...page.items] };
}

/** Oldest first. A moment has no id: one that says the same at the same time is the same. */
export function withMoment(page: Page<Moment>, moment: Moment): Page<Moment> {
  const last = page.items.findLastIndex((other) => other.at <= moment.at);
  for (let index = last; index >= 0 && page.items[index]?.at === moment.at; index -= 1) {
    const other = page.items[index];
    if (other?.kind === moment.kind && other.detail === moment.detail && other.duration_ms === moment.duration_ms) {
      return page;
    }
  }
  return { ...page, items: page.items.toSpliced(last + 1, 0, moment) };
}

function withSandbox(page: Page<Sandbox>, sandbox: Sandbox): Page<Sandbox> {
  if (sandbox.state !== 'deleted') return withItem(page, sandbox);
  return { ...page, items: page.items.filter((other) => other.id !== sandbox.id) };
}
