import { useMemo, useState } from 'react';

import { isUnderWay, useNow } from './clock';
import { Heading } from './Heading';
import { buildMarks } from './lanes';
import { Legend } from './Legend';
import { MarkDetails } from './MarkDetails';
import type { Mark, Story } from './marks';
import styles from './Timeline.module.css';
import { Timeline } from './Timeline';
import { Toolbar } from './Toolbar';
import { useWidth } from './useWidth';
import { firstView, shown, type View } from './view';

/** One session drawn: what it came to, the lanes, and the details of the mark pointed at or focused. */
export function SessionTimeline(told: Omit<Story, 'now'>) {
  const { session, moments, plans, executions } = told;
  const now = useNow(told);
  const story = useMemo<Story>(
    () => ({ session, moments, plans, executions, now }),
    [session, moments, plans, executions, now],
  );
  const marks = useMemo(() => buildMarks(story), [story]);

  const [ref, width] = useWidth<HTMLDivElement>();
  const [chosenView, setView] = useState<View | null>(null);
  const view = chosenView ?? firstView(marks);
  const stretch = shown(view, marks, story, width);

  const [hovered, setHovered] = useState<string | null>(null);
  const [selected, setSelected] = useState<string | null>(null);
  const detailed: Mark | undefined = marks.find(({ id }) => id === (hovered ?? selected));

  return (
    <>
      <Heading session={session} executions={executions} plans={plans} />
      <Toolbar view={view} stretch={stretch} change={setView} />
      <div ref={ref} className={styles.canvas}>
        {width > 0 && (
          <Timeline
            marks={marks}
            stretch={stretch}
            width={width}
            now={isUnderWay(told) ? now - session.started_at : null}
            selected={selected}
            select={setSelected}
            hover={setHovered}
            change={setView}
          />
        )}
      </div>
      <MarkDetails mark={detailed} />
      <Legend />
    </>
  );
}
