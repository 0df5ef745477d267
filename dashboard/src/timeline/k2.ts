/** The K2 lane: each question as long as its answer took. What was asked and said is read below the timeline. */
import { exchangesOf, gist } from '../decisions/k2';
import { duration } from '../format';
import { type Fact, type Mark, mark, type Story } from './marks';

export function k2Marks({ session, moments }: Story): Mark[] {
  return exchangesOf(moments).map((exchange, index) => {
    const { answer } = exchange;
    const from = exchange.askedAt - session.started_at;
    const facts: Fact[] = [{ name: 'Model', value: exchange.model }];
    if (answer !== null) {
      facts.push({ name: 'Took', value: duration(answer.tookMs) }, { name: 'Outcome', value: answer.outcome });
      if (answer.tokensRead !== null) facts.push({ name: 'Tokens', value: `${answer.tokensRead} read, ${answer.tokensWritten ?? 0} written` });
      if (answer.cost !== null) facts.push({ name: 'Cost', value: String(answer.cost) });
    }
    return mark('k2', {
      id: `k2 ${index}`,
      lane: 'k2',
      shape: answer === null ? 'point' : 'bar',
      from,
      to: answer === null ? from : Math.max(from, answer.at - session.started_at),
      label: [gist(exchange), answer === null ? '' : duration(answer.tookMs)].filter(Boolean).join(' · '),
      title: 'K2 was asked',
      facts: facts.filter(({ value }) => value !== ''),
    });
  });
}
