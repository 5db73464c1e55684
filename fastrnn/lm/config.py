"""The settings of a training run, and the presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, Tuple, get_type_hints

from fastrnn.lm import encodings
from fastrnn.lm.errors import InputError
from fastrnn.lm.tokenizers import LEVELS

MODELS = ("language", "unrolled")
CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
OPTIMIZERS = ("adam", "sgd")
FORMATS = ("auto", "text", "whatsapp", "telegram", "signal", "jsonl")
DTYPES = ("float32", "float16")
METRICS = ("nats", "bits", "perplexity")


def _setting(
    default: Any,
    text: str,
    choices: Tuple[str, ...] = (),
    least: float = 0,
    below: float = 0,
    option: str = "",
    metavar: str = "",
) -> Any:
    limits = {"help": text, "choices": choices, "least": least, "below": below or float("inf")}
    limits.update(option=option, metavar=metavar)
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a training run computes.

    One field is one option of ``fastrnn train``. Losses are nats per token; the gradient is that of
    the loss summed over the steps of a batch and averaged over its rows, and `clip` and `rate` are
    for it.
    """

    data: str = _setting(
        "builtin",
        "files, folders and patterns such as 'chats/*.txt', read in this order; - is standard "
        "input, and builtin, nietzsche and tinyshakespeare are texts with a name",
    )
    encoding: str = _setting(encodings.UTF_8, "of files, such as utf-16 or cp1252 (utf-8)")
    format: str = _setting(
        "auto", "of exported chats; auto: by their content (auto)", choices=FORMATS
    )
    sender: str = _setting("", "keep only this person's messages in chats", option="from")
    redact: bool = _setting(
        False, "replace names, numbers and addresses by placeholders (docs/texts.md has the limits)"
    )
    level: str = _setting(
        "character", "a token is a character, a word, or what stands between spaces", choices=LEVELS
    )
    min_count: int = _setting(
        1, "words or characters rarer than this in the training part are unknown", least=1
    )
    validation: float = _setting(0.05, "share of the text to validate on", below=1)
    test: float = _setting(
        0.0, "share of the text, at its end, kept for `evaluate --split test`", below=1
    )
    validation_data: str = _setting(
        "", "a file to validate on, instead of a share of the text", metavar="FILE"
    )
    test_data: str = _setting("", "a file for `evaluate --split test`", metavar="FILE")

    model: str = _setting(
        "language",
        "language: recurrent; unrolled: feed-forward, without --cell, --layers and --dropout",
        choices=MODELS,
    )
    cell: str = _setting("lstm", "recurrent cell", choices=CELLS)
    embed: int = _setting(64, "size of the embedding", least=1)
    hidden: int = _setting(256, "hidden units per layer", least=1)
    layers: int = _setting(1, "number of recurrent layers", least=1)
    dropout: float = _setting(0.0, "dropout between layers and before the decoder", below=1)
    embed_dropout: float = _setting(0.0, "dropout between embedding and first layer", below=1)
    weight_dropout: float = _setting(
        0.0, "dropout of the weights between a layer's steps, once for each batch", below=1
    )
    dtype: str = _setting(
        "float32",
        "of the parameters; float16 is for GPUs, and trains with float32 copies and a loss scale",
        choices=DTYPES,
    )
    tie_weights: bool = _setting(False, "share the embedding's weights with the decoder")
    window: int = _setting(3, "tokens in a window of the unrolled model", least=1)
    stride: int = _setting(3, "tokens from one window to the next (unrolled model)", least=1)

    batch: int = _setting(32, "rows per batch", least=1)
    steps: int = _setting(100, "tokens per row of a batch (truncated BPTT)", least=1)
    epochs: int = _setting(10, "passes over the training part", least=1)
    optimizer: str = _setting("adam", "optimizer", choices=OPTIMIZERS)
    rate: float = _setting(0.001, "learning rate")
    decay: float = _setting(
        1.0,
        "factor on the learning rate in each epoch after --decay-after, while it is 1e-8 or more",
    )
    decay_after: int = _setting(0, "epochs at the full learning rate")
    clip: float = _setting(0.0, "largest global norm of the gradient; 0: no limit")
    init: float = _setting(
        0.0, "initial weights are uniform from -X to X; 0: Xavier, embedding 0.1"
    )
    patience: int = _setting(
        0, "stop after N epochs without a better loss (on the validation part, if any); 0: never"
    )
    seed: int = _setting(1, "random seed")

    metric: str = _setting("bits", "unit of the losses shown", choices=METRICS)
    ngram: int = _setting(
        0, "at the end, compare with an n-gram model with N tokens of context; 0: do not"
    )
    sample: int = _setting(200, "tokens to generate at the end")

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Settings).items():
            _check(name, getattr(self, name), kind, Settings.limits(name))
        encodings.check(self.encoding)
        for part in ("validation", "test"):
            share, data = getattr(self, part), getattr(self, f"{part}_data")
            if share and data:
                raise InputError(
                    f"{part} and {part}_data: got {share:g} and {data}, wanted a share of the text "
                    f"or a file"
                )
        if self.validation + self.test >= 1:
            raise InputError(
                f"validation and test: got {self.validation} and {self.test}, which leaves nothing "
                f"to train on"
            )
        if self.tie_weights and self.embed != self.hidden:
            raise InputError(
                f"tie_weights: wants embed and hidden to be the same, got {self.embed} and "
                f"{self.hidden}"
            )
        if self.tie_weights and self.model == "unrolled":
            raise InputError("tie_weights: the unrolled model has no tied weights")
        if self.dtype != "float32" and self.model == "unrolled":
            raise InputError(f"dtype: got {self.dtype}, wanted float32 for the unrolled model")

    @staticmethod
    def limits(name: str) -> Dict[str, Any]:
        """Help text, choices and range of one setting."""
        return dict(Settings.__dataclass_fields__[name].metadata)

    def updated(self, changes: Dict[str, Any]) -> Settings:
        """These settings with `changes`, checked; a file for a part takes the place of a share."""
        unknown = sorted(set(changes) - set(self.as_dict()))
        if unknown:
            raise InputError(f"settings: there is no setting {unknown[0]!r}")
        shares = {part: 0.0 for part in ("validation", "test") if changes.get(f"{part}_data")}
        return replace(self, **{**shares, **changes})

    def as_dict(self) -> Dict[str, Any]:
        """Name and value of every setting."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Dict[str, Any]) -> Settings:
        """The settings that :meth:`as_dict` gave."""
        # Before chats were recognized, all files were text.
        return Settings().updated({"format": "text", **values})


def _check(name: str, value: Any, kind: type, limits: Dict[str, Any]) -> None:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise InputError(f"{name}: got {value!r}, wanted {kind.__name__}")
    if limits["choices"] and value not in limits["choices"]:
        raise InputError(f"{name}: got {value!r}, wanted one of {', '.join(limits['choices'])}")
    if kind in (int, float) and not limits["least"] <= value < limits["below"]:
        bound = "" if limits["below"] == float("inf") else f" and less than {limits['below']:g}"
        raise InputError(f"{name}: got {value}, wanted at least {limits['least']:g}{bound}")


PRESETS: Dict[str, Settings] = {
    # Small and fast: a few minutes on a laptop, with the text that needs no network.
    "demo": Settings(
        validation=0.1,
        dropout=0.3,
        batch=16,
        steps=64,
        rate=0.004,
        decay=0.7,
        decay_after=5,
        clip=16.0,
        ngram=3,
        sample=400,
    ),
    # The sequence model of the MXNet tutorial. It had no validation part; 5 % is little enough
    # for its losses to stay comparable.
    "tutorial": Settings(
        data="nietzsche",
        embed=50,
        hidden=1000,
        layers=2,
        dropout=0.4,
        batch=32,
        steps=100,
        epochs=10,
        clip=0.2 * 100,
        metric="nats",
    ),
    # The tutorial's first model: three characters in, the next one out.
    "unrolled": Settings(
        data="nietzsche", model="unrolled", embed=30, hidden=256, epochs=10, metric="nats"
    ),
    # The small word model of Zaremba, Sutskever and Vinyals, arXiv:1409.2329.
    "zaremba-small": Settings(
        level="word",
        min_count=2,
        embed=200,
        hidden=200,
        layers=2,
        batch=20,
        steps=20,
        epochs=13,
        optimizer="sgd",
        rate=1.0,
        decay=0.5,
        decay_after=4,
        clip=5.0,
        init=0.1,
        metric="perplexity",
    ),
}
# Their medium model.
PRESETS["zaremba-medium"] = replace(
    PRESETS["zaremba-small"],
    embed=650,
    hidden=650,
    dropout=0.5,
    embed_dropout=0.5,
    steps=35,
    epochs=39,
    decay=1 / 1.2,
    decay_after=6,
    init=0.05,
)


def preset(name: str, **changes: Any) -> Settings:
    """The settings of a preset, with `changes`.

    Parameters
    ----------
    name : str
        A key of `PRESETS`.
    **changes
        Settings to override, such as ``hidden=128``.

    Raises
    ------
    InputError
        For an unknown preset or setting, or a value out of range.
    """
    if name not in PRESETS:
        raise InputError(f"preset: got {name!r}, wanted one of {', '.join(PRESETS)}")
    return PRESETS[name].updated(changes)


def noun(settings: Settings) -> str:
    """What a token is called."""
    return "character" if settings.level == "character" else "word"
