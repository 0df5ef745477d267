import { type RefObject, useEffect } from 'react';

import { panned, type Stretch, zoomed } from './view';

/**
 * Ctrl (or ⌘) and wheel, or a pinch, zooms around the pointer; a sideways wheel, or Shift and wheel, moves along. The
 * plain wheel keeps scrolling the page.
 */
export function useWheel(
  ref: RefObject<Element | null>,
  stretch: Stretch,
  toSeconds: (clientX: number) => number,
  change: (stretch: Stretch) => void,
): void {
  useEffect(() => {
    const element = ref.current;
    if (element === null) return undefined;
    const onWheel = (event: WheelEvent) => {
      const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
      if (event.ctrlKey || event.metaKey) {
        change(zoomed(stretch, Math.exp(event.deltaY * 0.002), toSeconds(event.clientX)));
      } else if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
        change(panned(stretch, sideways / 800));
      } else {
        return;
      }
      event.preventDefault();
    };
    // React's own wheel listeners are passive and could not keep the page still.
    const listener = onWheel as EventListener;
    element.addEventListener('wheel', listener, { passive: false });
    return () => {
      element.removeEventListener('wheel', listener);
    };
  }, [ref, stretch, toSeconds, change]);
}
