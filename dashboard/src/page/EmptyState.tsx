import type { Host } from '../api/types';
import { CopyLine } from './CopyLine';
import styles from './Notice.module.css';

const PROXY = 'http://127.0.0.1:8787/v1';
const MCP = 'http://127.0.0.1:8788/mcp';

/** Nothing has happened yet: how to make something happen. */
export function EmptyState({ host }: { host: Host | undefined }) {
  return (
    <section className={styles.empty} aria-labelledby="empty-title">
      <h2 id="empty-title">No conversation yet</h2>
      <p>
        Ephemeral reads a conversation as it streams and has a sandbox ready, packages imported, before the model has
        written the code. Connect an app and it appears here.
      </p>
      <ol>
        <li>
          <p>Point your app’s OpenAI client at the proxy, then start the app:</p>
          <CopyLine text={`export OPENAI_BASE_URL=${host?.facts.proxy_address ?? PROXY}`} />
        </li>
        <li>
          <p>Give your agent the tool that runs code, at this MCP address:</p>
          <CopyLine text={host?.facts.mcp_address ?? MCP} />
        </li>
        <li>
          <p>Or watch ten recorded conversations first:</p>
          <CopyLine text="ephemeral demo" />
        </li>
      </ol>
    </section>
  );
}
