import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';

import { type Connection, openStream } from './stream';

/** Keeps the stream open while the component stands. */
export function useStream(): Connection {
  const client = useQueryClient();
  const [connection, setConnection] = useState<Connection>('connecting');
  useEffect(() => openStream(client, setConnection), [client]);
  return connection;
}
