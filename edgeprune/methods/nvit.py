"""NViT: a vision transformer's five dimensions pruned together, by one score and the measured latency.

Yang et al., Global Vision Transformer Pruning with Hessian-Aware Saliency (CVPR 2023, arXiv 2110.04869), sections 3.1
to 3.3. The dimensions are the embedding (EMB, one for the net) and in each block the heads (H), query and key of a head
(QK), value of a head (V) and the hidden units of the MLP. Query, key and value are seen as (dimension, EMB, head), so a
cut of QK or V takes the same index out of all heads; attention keeps its scale.

*Score.* I_S = (sum over s in S of w_s dL/dw_s)^2, averaged over batches. The signed sum is taken over the weights that
the paper names and divided before it is squared, by what makes the dimensions comparable: EMB by the number of blocks
(12 in DeiT), H by 6, QK by 2.

*Choice.* Units go in groups (EMB 16, H 2, QK 8, V 8, MLP 16), the lowest in the layer first; the group that goes next
is the least worth among all dimensions of all blocks, until the latency is met. With `eta` a group is worth what the
paper says, I - eta * (seconds that it takes): one number that has to fit the model, the loss and the device. Unless it
is given, a group is worth I / (seconds that it takes): what goes is then what the one eta that fits the target makes
worth less than nothing. Below H 2, QK 8, V 8 and MLP 16 latency is no reason to go on.

*Training.* With `prune.epochs` the scores are those of the training itself: every step's gradients count, and what was
seen before the last choice counts `momentum` (0.9) of it.

Ours: the seconds are those of the device's measured table, for the whole cut instead of unit by unit; the last cut goes
no further than the target asks; where a layer has fewer than twelve heads they go singly. QK's weights are half of
query's and key's, which is each of them where neither has a bias. Where the code has one width for query, key and value
(Swin), a unit is one of each, and counts like a head's three.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgeprune.errors import ModelError
from edgeprune.methods.method import Method, ToRank
from edgeprune.methods.taylor import MICRO_BATCHES, SCORING_BATCH, Slope, score_taylor
from edgeprune.recipe import MOST_IMAGES, Section
from edgeprune.search.problem import ROUNDING, Chosen, Problem, out_of_reach
from edgeprune.space.ranking import ByScore, Scores

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.methods.seen_scores import SeenScores
    from edgeprune.space.units import Layer, Member, Structure, UnitGroup

Dimension = Literal["EMB", "H", "QK", "V", "MLP"]
STEP: dict[Dimension, int] = {"EMB": 16, "H": 2, "QK": 8, "V": 8, "MLP": 16}  # units that go together
FLOOR: dict[Dimension, int] = {"EMB": 1, "H": 2, "QK": 8, "V": 8, "MLP": 16}  # below it latency is no reason
OF_ATTENTION: dict[str, Dimension] = {"heads": "H", "qk": "QK", "head_dims": "QK", "v": "V"}
FEW_HEADS = 12
OF_HEADS, OF_QK = 6, 2  # what the signed sums are divided by


class NvitSettings(Section):
    """[prune.nvit]. `scoring_batches`: of 128 images, where the model does not train while it is pruned. `momentum`: of
    the scores, from choice to choice. `eta`: what a second of latency is worth, in the unit of the scores; of a target
    that is no latency there is none."""

    scoring_batches: int = Field(default=8, ge=1, le=MOST_IMAGES)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    eta: float | None = Field(default=None, ge=0)


class Nvit(Method):
    """Global pruning of a vision transformer."""

    name = "nvit"
    Settings = NvitSettings
    allocators = ("nvit",)

    def rank(self, asked: ToRank) -> ByScore:
        """By the gradients that training has seen; where it does not train, by those of training images.

        Raises:
            ModelError: the model has no attention whose heads can go.
        """
        if asked.seen is not None:
            return ByScore(asked.seen)
        assert isinstance(self.settings, NvitSettings)
        batches = asked.images.batches(SCORING_BATCH, seed=asked.seed)
        chosen = itertools.islice(batches, self.settings.scoring_batches * MICRO_BATCHES)
        module, structure = asked.model.module, asked.structure
        slopes = published_slopes(module, structure)
        return ByScore(score_taylor(module, structure, chosen, objective=asked.objective, slopes=slopes))

    def watching(self, module: nn.Module, structure: Structure) -> SeenScores:
        from edgeprune.methods.seen_scores import SeenScores

        assert isinstance(self.settings, NvitSettings)
        return SeenScores(module, structure, published_slopes(module, structure), self.settings.momentum)


def dimensions(structure: Structure) -> dict[str, Dimension]:
    """Which of the five dimensions each group is. Streams that blocks add to are EMB; what is no part of attention and
    no stream is MLP.

    Raises:
        ModelError: the model has no attention whose heads can go.
    """
    if not any(_what(group) == "heads" for group in structure.groups):
        raise ModelError(
            "NViT prunes transformers, and no attention was found whose heads can go",
            where="prune.method",
            hint="look at what can go (edgeprune show units), or take another method: taylor, isomorphic, auto",
        )
    ends = {branch.output for branch in structure.branches if not branch.gate}
    streams = {name for output in structure.outputs if output.module in ends for name in output.groups}
    return {
        group.id: "EMB" if group.id in streams else OF_ATTENTION.get(_what(group), "MLP") for group in structure.groups
    }


def _what(group: UnitGroup) -> str:
    """What the units of a group are, as its id ends."""
    return group.id.rpartition(":")[2]


def published_slopes(module: nn.Module, structure: Structure) -> dict[str, Slope]:
    """The signed sums of NViT's score by group: over the weights that write the units, of EMB also those that read
    them; norms, biases, tokens and positions are left out. A stream has half as many blocks as layers that add to it.

    Raises:
        ModelError: the model has no attention whose heads can go, or no weights write a group's units.
    """
    named = dimensions(structure)

    def slope(group: UnitGroup) -> Slope:
        written = _matrices(module, group.produced)
        if not written:
            raise ModelError(
                "no matrix of weights writes its units, which NViT's score is summed over",
                where=group.id,
                hint="keep this layer (prune.keep), or take another method: taylor, isomorphic",
            )
        match named[group.id]:
            case "EMB":
                return Slope((*written, *_matrices(module, group.consumed)), 1 / max(1, len(written) // 2))
            case "H":
                return Slope(written, 1 / OF_HEADS)
            case "QK" if _what(group) == "head_dims":  # with V: the code has one width for the three
                return Slope(written, 1 / OF_HEADS)
            case "QK":
                return Slope(written, 1 / (2 * OF_QK))
        return Slope(written)

    return {group.id: slope(group) for group in structure.groups}


def _matrices(module: nn.Module, members: Sequence[Member]) -> tuple[Member, ...]:
    """Those members that are weights of layers, as their names say; where none is called so, all that are matrices."""
    from edgeprune.space.cut import tensor_named

    matrices = tuple(member for member in members if tensor_named(module, member.name).ndim > 1)
    return tuple(member for member in matrices if member.name.endswith("weight")) or matrices


@dataclass(frozen=True)
class _Cut:
    """A group down to a width: the score that goes with it, and the cost that it saves."""

    group: str
    width: int
    score: float
    saved: float


@dataclass(frozen=True)
class _State:
    """A model on the way: its widths and what it costs."""

    kept: Mapping[str, int]
    cost: float


class GroupsByWorth:
    """Chooses by taking away the group of units that is least worth, again and again; residual branches stay.

    Args:
        problem: only the answer is judged.
        scores: of every group's units, shape (units,).
        eta: what a unit of cost is worth in scores; None: what costs most for its score goes first.

    Raises:
        ModelError: the model is no transformer.
    """

    def __init__(self, problem: Problem, scores: Scores, eta: float | None = None) -> None:
        self.problem, self._eta = problem, eta
        self._dimensions = dimensions(problem.structure)
        self._lowest = {name: [0.0, *itertools.accumulate(sorted(values))] for name, values in scores.items()}
        self._layers: dict[str, list[Layer]] = {name: [] for name in problem.structure.sizes}
        for layer in problem.structure.layers:
            for name in dict.fromkeys((*layer.in_width.groups, *layer.out_width.groups)):
                self._layers[name].append(layer)
        self._path = [_State(problem.structure.sizes, problem.whole_cost)]

    def within(self, budget: float, *, granularity: int | None = None) -> Chosen:
        """The choice for a budget; the last cut goes no further than it must, at a finer granularity where one is
        given. The way there is kept for other budgets.

        Raises:
            TargetError: even the smallest model allowed costs more than the budget.
        """
        while self._path[-1].cost > budget:
            here = self._path[-1]
            best = min(self._cuts(here), key=self._worth, default=None)
            if best is None:
                whole = self._path[0].cost
                raise out_of_reach(f"{budget / whole:.3g}x", f"{here.cost / whole:.3g}x")
            self._path.append(self._after(here, best))
            if self.problem.on_step is not None:
                self.problem.on_step(self._path[-1].cost, 0)
        first = next(number for number, state in enumerate(self._path) if state.cost <= budget)
        if not first:
            return self._chosen(self._path[0])
        return self._chosen(self._last_cut(self._path[first - 1], self._path[first], budget, granularity))

    def smallest(self) -> Chosen:
        """Every group at its least width."""
        return self._chosen(self._at({name: widths[-1] for name, widths in self.problem.space.widths.items()}))

    def _cuts(self, here: _State) -> Iterator[_Cut]:
        """Of each group the next cut of its step; where that saves nothing (a kernel works on whole tiles), the least
        that does."""
        for name, widths in self.problem.space.widths.items():
            narrower = [width for width in widths if width < here.kept[name]]
            if not narrower:
                continue
            step = [width for width in narrower if width <= here.kept[name] - self._step(name)] or narrower[-1:]
            cuts = (self._cut(here, name, width) for width in step)
            first = next(cuts)
            yield first if first.saved > 0 else next((cut for cut in cuts if cut.saved > 0), first)

    def _step(self, group: str) -> int:
        kind = self._dimensions[group]
        few = kind == "H" and self.problem.structure.sizes[group] < FEW_HEADS
        return 1 if few else STEP[kind]

    def _cut(self, here: _State, group: str, width: int) -> _Cut:
        lowest, size = self._lowest[group], self.problem.structure.sizes[group]
        score = lowest[size - width] - lowest[size - here.kept[group]]
        costs, after = self.problem.costs, {**here.kept, group: width}
        saved = math.fsum(
            costs.cost(layer.signature(here.kept)) - costs.cost(layer.signature(after)) for layer in self._layers[group]
        )
        return _Cut(group, width, score, saved)

    def _worth(self, cut: _Cut) -> tuple[float, float, float]:
        """What a cut takes away for what it saves; of two that are worth the same, first what takes less away, then
        what saves more."""
        saved = cut.saved if self._above_floor(cut) else 0.0
        if self._eta is not None:
            return cut.score - self._eta * saved, cut.score, -saved
        if cut.score == 0:  # of units that nothing tells, or that are gone already
            return 0.0, 0.0, -saved
        return (cut.score / saved if saved > 0 else math.inf), cut.score, -saved

    def _above_floor(self, cut: _Cut) -> bool:
        return cut.width >= FLOOR[self._dimensions[cut.group]]

    def _last_cut(self, before: _State, after: _State, budget: float, granularity: int | None) -> _State:
        """The model that meets the budget with the least score lost beyond `before`: `after`, or one group narrower
        than before it, no further than it must be."""
        (name,) = (name for name, kept in after.kept.items() if kept < before.kept[name])
        found = [(self._cut(before, name, after.kept[name]).score, -after.cost, after)]
        for name, widths in self.problem.space.finer(granularity).widths.items():
            for width in (width for width in widths if width < before.kept[name]):
                cut = self._cut(before, name, width)
                if not self._above_floor(cut):
                    break
                state = self._after(before, cut) if before.cost - cut.saved <= budget * (1 + ROUNDING) else None
                if state is not None and state.cost <= budget:
                    found.append((cut.score, -state.cost, state))
                    break
        return min(found, key=lambda one: one[:2])[2]

    def _after(self, here: _State, cut: _Cut) -> _State:
        return self._at({**here.kept, cut.group: cut.width})

    def _at(self, kept: Mapping[str, int]) -> _State:
        from edgeprune.latency.cost import total

        return _State(kept, total(self.problem.structure.layers, kept, self.problem.costs))

    def _chosen(self, state: _State) -> Chosen:
        subnet = self.problem.space.subnet(state.kept, self.problem.ranking)
        return Chosen(subnet, state.cost, self.problem.judge(subnet))
