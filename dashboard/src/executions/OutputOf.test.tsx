// @vitest-environment jsdom
import { cleanup, render, screen } from '@testing-library/react';
import { afterEach, describe, expect, it } from 'vitest';

import { execution } from '../testing/samples';
import { OutputOf } from './OutputOf';

afterEach(cleanup);

describe('output of executed code', () => {
  it('is text, whatever it looks like', () => {
    const markup = '<img src=x onerror=alert(1)><script>alert(2)</script>';
    const { container } = render(
      <OutputOf execution={execution({ stdout: markup, outputs: [{ mime: 'text/html', data: markup }] })} capture />,
    );
    expect(screen.getAllByText(markup)).toHaveLength(2);
    expect(container.querySelector('img, script')).toBeNull();
  });

  it('is a picture only as a PNG in base64', () => {
    const outputs = [
      { mime: 'image/png', data: 'iVBORw0KGgo=' },
      { mime: 'image/png', data: '" onload="alert(1)' },
      { mime: 'image/svg+xml', data: '<svg onload="alert(1)"/>' },
    ];
    const { container } = render(<OutputOf execution={execution({ outputs })} capture />);
    expect([...container.querySelectorAll('img')].map(({ src }) => src)).toEqual(['data:image/png;base64,iVBORw0KGgo=']);
  });

  it('says how to keep it where it is not kept', () => {
    render(<OutputOf execution={execution()} capture={false} />);
    expect(screen.getByText('EPHEMERAL_CAPTURE=1 ephemeral up')).toBeDefined();
  });
});
