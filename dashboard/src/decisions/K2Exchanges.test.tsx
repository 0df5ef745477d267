// @vitest-environment jsdom
import { cleanup, render, screen } from '@testing-library/react';
import { afterEach, describe, expect, it } from 'vitest';

import { START } from '../testing/samples';
import { type Exchange } from './k2';
import { K2Exchanges } from './K2Exchanges';

afterEach(cleanup);

function exchange(prompt: string, text: string): Exchange {
  const answer = { at: START + 2, tookMs: 700, text, outcome: 'answered', action: '', packages: [], tokensRead: 9, tokensWritten: 3, cost: null };
  return { askedAt: START + 1, model: 'k2', prompt, answer };
}

describe('the transcript of K2', () => {
  it('is text, whatever it looks like', () => {
    const markup = '<img src=x onerror=alert(1)><script>alert(2)</script>';
    const { container } = render(<K2Exchanges exchanges={[exchange(markup, markup)]} origin={START} capture />);
    expect(screen.getAllByText(markup)).toHaveLength(2);
    expect(container.querySelector('img, script')).toBeNull();
  });

  it('is folded until somebody wants to read it', () => {
    const { container } = render(<K2Exchanges exchanges={[exchange('asked', 'said')]} origin={START} capture />);
    expect(container.querySelector('details')?.open).toBe(false);
  });

  it('says how to keep it where it is not kept', () => {
    render(<K2Exchanges exchanges={[exchange('', '')]} origin={START} capture={false} />);
    expect(screen.getByText('EPHEMERAL_CAPTURE=1 ephemeral up')).toBeDefined();
  });
});
