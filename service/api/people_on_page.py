"""What people said blind, written into a report's page as it is sent: the page is made once, and people judge later."""

import hashlib
from collections.abc import Iterator, Sequence

from jinja2 import Environment, StrictUndefined

from alignment_core.reports import HumanComparison
from service.api.context import Parts
from service.api.downloads import Body, body_of
from service.store.records.base import StoredFile

PLACE = b"<main>"
"""Where the page's own text begins: it occurs once, as everything that users wrote is escaped."""

TEMPLATE = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string("""
<section aria-labelledby="people">
  <h2 id="people">Judged by people</h2>
  <p class="note">Blind: two pictures of one prompt and seed, left and right shuffled. Pairs go to the model that most people prefer; a tie counts half.</p>
  <div class="wide" tabindex="0" role="region" aria-label="Judged by people">
  <table>
    <thead><tr><th scope="col">compared</th><th scope="col">pairs won</th><th scope="col">pairs</th><th scope="col">won, tied, lost</th><th scope="col">people</th></tr></thead>
    <tbody>
    {% for one in comparisons %}
    {% set interval = one.wilson_interval %}
    <tr>
      <th scope="row">{{ one.policy }} against {{ one.base }}</th>
      <td data-is="pairs won" class="{{ 'better' if interval.low > 0.5 else 'worse' if interval.high < 0.5 }}">{{ percent(one.win_rate) }}<span class="low">{{ percent(interval.low) }} to {{ percent(interval.high) }}</span></td>
      <td data-is="pairs">{{ one.num_pairs }}</td>
      <td data-is="won, tied, lost">{{ one.won }}, {{ one.ties }}, {{ one.lost }}</td>
      <td data-is="people">{{ one.num_annotators }}</td>
    </tr>
    {% endfor %}
    </tbody>
  </table>
  </div>
  <p class="note">Wilson's interval at {{ '%g' | format(100 * comparisons[0].wilson_interval.confidence) }} %, over pairs.</p>
</section>
""")


def with_people(parts: Parts, page: StoredFile, comparisons: Sequence[HumanComparison]) -> Body:
    """The page with a section of what people said until now, under a hash of its own; as it is stored where nobody said anything."""
    if not comparisons:
        return body_of(parts, page)
    stored = b"".join(parts.objects.open_range(page.object_key))
    section = TEMPLATE.render(comparisons=comparisons, percent=lambda share: f"{100 * share:.1f} %").encode()
    before, place, after = stored.partition(PLACE)
    whole = before + place + section + after

    def open_range(start: int, end: int) -> Iterator[bytes]:
        yield whole[start:end]

    return Body(len(whole), hashlib.sha256(whole).hexdigest(), open_range)
