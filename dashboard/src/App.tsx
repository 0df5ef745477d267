import { RequestError } from './api/fetch';
import { useHost } from './api/queries';
import { useStream } from './api/useStream';
import { Overview } from './page/Overview';
import { SignIn } from './page/SignIn';

/** Asks for the host first: its answer also says whether this browser may look at all. */
export function App() {
  const host = useHost();
  if (host.error instanceof RequestError && host.error.status === 401) return <SignIn />;
  if (host.isPending) return <p role="status">Asking sandboxd…</p>;
  return <LiveApp />;
}

function LiveApp() {
  const connection = useStream();
  return <Overview connection={connection} />;
}
