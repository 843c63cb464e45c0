"""The sections of a recipe: one pydantic model each, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from secateur import schedules
from secateur.limits import quoted

CAREFUL = 1e-3  # Adam's own default: for trained nets with steps enough
_FLOAT = "float"
Beta = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Constrain(Section):
    """One entry of `constrain`: which sites, which set (a list = joint set), which level."""

    where: str | list[str] = "*"
    exclude: str | list[str] | None = None
    with_: str | dict[str, Any] | list[str | dict[str, Any]] = Field("topk", alias="with")
    level: dict[str, Any] | None = None


class Calibration(Section):
    """The data that ranges of activations are taken from."""

    batches: int = Field(20, ge=1)


class Quantize(Section):
    """Integers for layers: their weights, a scale per output channel, and what they read, a scale per tensor.

    Attributes:
        weights: bits; or a list of bits, and `float`, of which the budget picks one a layer; null: `constrain` says it.
        activations: bits; null: layers read floats.
        keep_float: patterns of layers of `where` that stay as they are.
    """

    where: str | list[str] = "*"
    weights: int | list[int | str] | None = 8
    activations: Literal[8] | None = 8
    keep_float: str | list[str] = []
    observer: str = "minmax"
    calibration: Calibration = Calibration()

    @field_validator("weights", mode="before")
    @classmethod
    def _are_bits(cls, given: Any) -> Any:
        several = given if isinstance(given, list) else [given]
        whole = [b for b in several if isinstance(b, int) and not isinstance(b, bool) and 2 <= b <= 8]
        free = isinstance(given, list) and _FLOAT in given
        if given is not None and (not whole or len(whole) + free != len(several) or len(set(whole)) != len(whole)):
            raise ValueError(
                f"weights: {quoted(given)}; bits from 2 to 8 are needed, or a list of them, each once, and float where "
                "the budget may leave a layer as it is: [4, 8, float]"
            )
        return given

    @model_validator(mode="after")
    def _asks_for_something(self) -> Quantize:
        if self.weights is None and self.activations is None:
            raise ValueError("weights and activations are both null, which asks for nothing; give one of them 8 bits")
        return self

    def entries(self) -> list[Constrain]:
        """What it says, as entries of `constrain`."""
        bits = self.weights if isinstance(self.weights, list) else [self.weights]
        whole = sorted(b for b in bits if isinstance(b, int))
        sets: list[tuple[dict[str, Any], int | None]] = []
        if len(bits) == 1 and whole:
            sets.append(({"name": "uniform", "per": "row"}, whole[0]))
        elif whole:
            sets.append(({"name": "uniform", "per": "row", "menu": whole, "dense": _FLOAT in bits}, None))
        if self.activations:
            seen = {"name": "observed", "observer": self.observer, "batches": self.calibration.batches}
            sets.append((seen, self.activations))
        place = {"where": self.where, "exclude": self.keep_float or None}
        return [
            Constrain.model_validate({**place, "with": with_, "level": None if n is None else {"bits": n}})
            for with_, n in sets
        ]


class Training(Section):
    """How weights are trained; the same keys serve the dense net, the approach, the polish and the snap.

    Attributes:
        lr: None: `CAREFUL`; and in a run's own stages more of it where steps are few for what is cut (`run/pace.py`).
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float | None = Field(None, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(128, ge=1)
    warmup_steps: int = Field(50, ge=0)
    schedule: str = "cosine"
    average: float = Field(0.0, ge=0, lt=1)
    augment: str | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    checkpoint_seconds: float = Field(30.0, ge=0)

    @property
    def learning_rate(self) -> float:
        """Where nothing else decides."""
        return CAREFUL if self.lr is None else self.lr

    @field_validator("schedule")
    @classmethod
    def _is_known(cls, name: str) -> str:
        schedules.get(name)
        return name


class Latency(Section):
    """What milliseconds are planned with: null, a table of this machine; a file, another machine's."""

    table: str | None = None


class Bench(Section):
    """Which runtimes the report times the nets in, and for how long (seconds per net)."""

    against: list[Literal["onnxruntime", "openvino", "torch"]] = ["onnxruntime", "torch"]
    seconds: float = Field(2.0, gt=0)
    threads: int = Field(1, ge=1, le=1024)
