"""Reports of every kind, and one whose every text is hostile."""

from llama_index.tuning.app.report import AppReport, Moved, Rung
from llama_index.tuning.evaluate.routing import Confusion, DeferralPoint
from llama_index.tuning.judges import JudgeReport
from llama_index.tuning.report import FinetuneReport, Gain, QueryGain
from llama_index.tuning.routers import RouterReport


def gain(base, tuned, low, high, n=668):
    return Gain(base, tuned, low, high, n, 0.9)


DOCUMENT = "Revenue from riders is recognised over the rental period; see note 3 for leases."
RIDERS = [
    QueryGain(f"q{n}", f"How is revenue recognised in quarter {n}?", [DOCUMENT], *values)
    for n, values in enumerate([(0.387, 1.0)] * 5 + [(1.0, 0.43)] * 2)
]
COMMON = {
    "model": "all-MiniLM-L6-v2",
    "date": "2026-11-29T09:25:00+00:00",
    "data": {"fingerprint": "ab12cd34ef567890", "labelled": {"queries": 668, "documents": 349}},
    "options": {"learning_rate": 3e-4, "batch_size": 64},
    "seconds": {"embed": 12.2, "train": 75.0},
    "versions": {"torch": "2.13.0"},
    "history": [{"fold": 0.0, "epoch": 1.0, "ndcg@10": 0.61}],
    "notes": ["a note"],
}
METRICS = ("ndcg@10", "mrr@10", "hit_rate@10")
SEEN = {name: gain(0.64, 0.67, 0.018, 0.042, 450) for name in METRICS}
UNSEEN = {name: gain(0.64, 0.635, -0.017, 0.007, 218) for name in METRICS}

ADAPTER = FinetuneReport(
    title="embedding adapter (linear, query side)",
    method="5-fold cross-fitting",
    primary="ndcg@10",
    gains={name: gain(0.64, 0.66, 0.008, 0.032) for name in METRICS},
    slices={
        "documents with training queries": SEEN,
        "documents without training queries": UNSEEN,
    },
    accepted=True,
    reason="the gain is shown: ndcg@10 +0.020",
    queries=RIDERS,
    **COMMON,
)
CHOICES = ["card arrival", "lost card", "exchange rate"]
ROUTER = RouterReport(
    title="router",
    method="cross-fitting",
    primary="accuracy",
    gains={"accuracy": gain(0.62, 0.86, 0.2, 0.28)},
    slices={"over the choices' frequencies": {"accuracy": gain(0.1, 0.86, 0.7, 0.8)}},
    accepted=True,
    reason="the gain is shown",
    summary={"macro_f1": 0.85, "calibration_error": 0.03},
    choices=CHOICES,
    matrix=[[47, 3, 0], [3, 32, 1], [0, 2, 40]],
    confusions=[Confusion("card arrival", "lost card", 3, ["Where is my card?"])],
    deferral=[DeferralPoint(s, s, 0.86 + s / 10, 0.86 + s / 20) for s in (0, 0.1, 0.5)],
    **COMMON,
)
JUDGE = JudgeReport(
    title="judge (light, pointwise)",
    method="5-fold cross-fitting",
    primary="balanced accuracy",
    gains={"balanced accuracy": gain(0.52, 0.53, -0.02, 0.03, 40)},
    base="the shortcut 'length only'",
    reason="no gain is shown",
    summary={"auroc": 0.7},
    intervals={"auroc": (0.66, 0.74)},
    shortcuts={"length only": {"balanced accuracy": 0.52, "accuracy": 0.8, "kappa": 0.0}},
    unit="verdicts",
    **COMMON,
)
UNMEASURED = FinetuneReport(
    title="hosted tuning",
    method="not measured",
    primary="",
    gains={},
    reason="nothing was measured",
)

EVIL = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></style></title>{{7*7}}{%raw%} "
    "\u202egnp.exe\u2066 \x00\x1b \ud800 العربية 词 " + "W" * 400
)
HOSTILE = RouterReport(
    title=EVIL,
    method=EVIL,
    primary=EVIL,
    gains={EVIL: gain(0.5, 0.6, 0.05, 0.15), EVIL + "2": gain(-5e7, 9e9, -1e10, float("nan"))},
    slices={EVIL + "3": {EVIL: gain(0.5, 0.6, 0.05, 0.15)}},
    accepted=True,
    reason=EVIL,
    model=EVIL,
    date=EVIL,
    base=EVIL,
    measured_on=EVIL,
    data={EVIL: {EVIL: [EVIL]}, "fingerprint": EVIL, "queries": 7},
    options={EVIL: {EVIL: EVIL}},
    seconds={EVIL: 1e6},
    history=[{EVIL: 1.0}],
    notes=[EVIL],
    versions={EVIL: EVIL},
    unit=EVIL,
    queries=[QueryGain(EVIL, EVIL, [EVIL, EVIL], 0.1, 0.9)],
    summary={EVIL: 0.5},
    choices=[EVIL, "a", "b"],
    matrix=[[47, 3, 0], [3, 32, 1], [0, 2, 40]],
    confusions=[Confusion(EVIL, EVIL, 3, [EVIL])],
)
ALL = {
    "adapter": ADAPTER,
    "router": ROUTER,
    "judge": JUDGE,
    "unmeasured": UNMEASURED,
    "hostile": HOSTILE,
}


def app_report(text):
    """An app's report with this text wherever one may be the user's."""
    shown = gain(0.64, 0.8, 0.12, 0.2)
    values = {"ndcg@10": 0.64, "hit_rate@5": 0.7}
    moved = [Moved(question=f"{n} {text}", document=text, before=7, now=1) for n in range(5)]
    return AppReport(
        served=text,
        kind="questions",
        changed=True,
        shown=True,
        reason=text,
        gains={"ndcg@10": shown, "hit_rate@5": shown},
        slices={text: {"ndcg@10": shown}},
        ladder=[
            Rung(name="the app before", values=values, gain=gain(0.64, 0.64, 0, 0), milliseconds=0),
            Rung(name=text, values=values, gain=shown, milliseconds=2, taken=True, reason=text),
        ],
        worse=[Moved(question=text, document=text, before=1, now=None)],
        better=moved,
        model=text,
        date=COMMON["date"],
        counts={"nodes": 1340},
        seconds={"embed": 12.0},
        notes=[text],
        fingerprint="ab12cd34ef567890",
        versions={"torch": text},
    )


PAGES = ALL | {"app": app_report("word fusion, re-ranked"), "hostile app": app_report(EVIL)}
