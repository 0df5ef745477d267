import { CopyLine } from './CopyLine';
import styles from './Notice.module.css';

/** What a browser without the cookie sees. */
export function SignIn() {
  return (
    <main className={styles.page}>
      <h1>This dashboard needs a token</h1>
      <p>
        Open the address that <code>ephemeral up</code> printed: it ends in <code>/?token=…</code> and signs this
        browser in.
      </p>
      <p>The address is gone? Stop Ephemeral and start it again, it prints it anew:</p>
      <CopyLine text="ephemeral up" />
    </main>
  );
}
