"""HTML of results: well formed, verdict first, no script, nothing that a string could break out of."""

from html.parser import HTMLParser

import numpy as np
import pytest

import isdiag
from isdiag import Status, rl
from isdiag._core import bands, markup
from tests import registry
from tests.helpers import quiet

HOSTILE = "</td><script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Tags, whether they are closed in order, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(result):
    found = Page(result._repr_html_())
    assert not {"script", "link", "img", "style", "iframe"} & set(found.tags)
    assert found.tags[:2] == ["div", "p"]  # the verdict
    return found


@pytest.mark.parametrize("function", registry.FUNCTIONS, ids=lambda function: function.name)
def test_every_result_has_a_page(heavy, function):
    for call in function.calls:
        if call.result is not None:
            result = call(heavy)
            found = page(result)
            if not isinstance(result, isdiag.Diagnosis):
                assert all(name in found.text for name in registry.FIELDS[call.result].split())


@pytest.mark.parametrize("status", [status for status in Status if not status.about_h])
def test_of_one_row_the_status_is_said(status):
    result = quiet(registry.STATUSES[status])
    text = page(result).text
    assert status in (Status.OK, Status.FLAT) or status.message in text or status.name in text


def test_what_is_said_first():
    rng = np.random.default_rng(1)
    log_w = rng.normal(scale=[[0.3], [3.0]], size=(2, 1000))
    smoothed = isdiag.psis(log_w[0])
    assert page(smoothed).text.startswith("■ good khat")
    assert page(isdiag.psis(log_w)).text.startswith("■ very bad khat of 2: 1 good, 1 very bad.")
    assert page(isdiag.select_gamma(log_w[1])).text.startswith("■ gamma 0.3")
    assert page(isdiag.select_gamma(log_w)).text.startswith("■ gamma 0.3")
    assert page(quiet(isdiag.select_gamma, np.full(9, np.nan))).text.startswith("■ no gamma")
    assert page(isdiag.finite_variance_test(log_w[0])).text.startswith("■ no evidence against")
    assert page(isdiag.finite_variance_test(log_w[1])).text.startswith("■ finite variance is in doubt")
    assert page(isdiag.finite_variance_test([0.0, 1.0])).text.startswith("■ unknown")
    assert page(isdiag.mse_curve(log_w[0], log_w[0])).text.startswith("■ least error at gamma")
    assert page(isdiag.mse_curve(log_w, log_w)).text.startswith("■ error by gamma")
    one = rl.GammaController().step(0.1 * log_w[0], log_w[0])
    assert page(one).text.startswith("■ no alarm gamma")
    stale = rl.GammaController().step(np.r_[50.0, np.zeros(99)], np.ones(100))
    assert page(stale).text.startswith("■ alarm: ")
    # A tail that is good is no more than half of it: the error of this estimate is not known.
    rough = isdiag.snis(log_w[0], np.r_[100.0, np.zeros(999)])
    assert Status(rough.status) is not Status.OK
    assert bands.PAINTS["yellow"] in rough._repr_html_()


def test_a_diagnosis_speaks_of_the_estimate_first_and_never_mixes():
    rng = np.random.default_rng(1)
    log_w = rng.normal(scale=[[0.3], [1.2], [3.0]], size=(3, 1000))
    for diagnosis in (isdiag.diagnose(log_w[1], log_w[1]), isdiag.diagnose(log_w[2], rule="mse", h=log_w[0])):
        text = page(diagnosis).text
        assert text.startswith(f"■ {diagnosis.verdict} ")
        estimate, step = text.split("step: gamma", 1)
        assert "emper" not in estimate
        assert "ESS at gamma" in step
    text = page(isdiag.diagnose(log_w)).text
    assert text.startswith("■ look at these 2 of 3 rows can be believed; the worst first.")
    assert "no estimate" in text
    many = isdiag.diagnose(np.tile(log_w, (9, 1)))
    assert "... and 17 more" in page(many).text


def test_strings_are_escaped():
    for html in (
        markup.verdict(HOSTILE, "red", HOSTILE),
        markup.pairs([(HOSTILE, HOSTILE)], HOSTILE),
        markup.grid([HOSTILE], [[HOSTILE], [(HOSTILE, "green")]], HOSTILE),
    ):
        found = Page(html)
        assert "script" not in found.tags
        assert HOSTILE in found.text


def test_labels_of_the_caller_are_escaped():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), columns=[HOSTILE, "b"])
    found = page(isdiag.psis(frame))
    assert "script" not in found.tags
    assert "status=['OK' 'OK']" in repr(isdiag.psis(frame))  # raised AttributeError
