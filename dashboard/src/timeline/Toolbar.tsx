import styles from './Timeline.module.css';
import { panned, type Stretch, type View, zoomed } from './view';

interface Props {
  view: View;
  stretch: Stretch;
  change: (view: View) => void;
}

export function Toolbar({ view, stretch, change }: Props) {
  const middle = (stretch.from + stretch.to) / 2;
  return (
    <div className={styles.toolbar} role="group" aria-label="Zoom">
      <button type="button" aria-pressed={view === 'all'} onClick={() => { change('all'); }}>
        Fit all
      </button>
      <button type="button" aria-pressed={view === 'turn'} onClick={() => { change('turn'); }}>
        Latest turn
      </button>
      <button type="button" aria-label="Zoom in" onClick={() => { change(zoomed(stretch, 0.5, middle)); }}>
        +
      </button>
      <button type="button" aria-label="Zoom out" onClick={() => { change(zoomed(stretch, 2, middle)); }}>
        −
      </button>
      <button type="button" aria-label="Earlier" onClick={() => { change(panned(stretch, -0.3)); }}>
        ←
      </button>
      <button type="button" aria-label="Later" onClick={() => { change(panned(stretch, 0.3)); }}>
        →
      </button>
      <span className={styles.hint}>Ctrl + wheel zooms, drag moves, arrow keys step through the marks.</span>
    </div>
  );
}
