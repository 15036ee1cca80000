# SPDX-License-Identifier: Apache-2.0
"""Measures that are summed up batch by batch: attention distance, MLP units, loss by decile."""

import torch
from torch import Tensor

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
DECILES = 10


class AttentionDistance:
    """How far a head looks: the mean distance between a patch and the patches it attends to.

    The attention of each patch to the patches, scaled to sum 1 (what goes to CLS and registers is
    left out), weighs the distances between centres; mean over patches and images (Dosovitskiy et
    al. 2021, arXiv 2010.11929, App. D.7).

    Args:
        layers: number of layers.
        grid: rows and columns of patches.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, layers: int, grid: tuple[int, int], patch_size: int) -> None:
        self.distances = patch_distances(grid) * patch_size
        self._sums: list[Tensor] = [torch.zeros(()) for _ in range(layers)]
        self._images = [0] * layers

    def add(self, layer: int, attention: Tensor) -> None:
        """Takes in the attention (B, heads, E + N, E + N) of a layer, CLS and registers first."""
        patches = len(self.distances)
        among = attention[:, :, -patches:, -patches:].float()
        among = among / among.sum(dim=-1, keepdim=True).clamp_min(1e-12)
        far = (among * self.distances.to(among.device)).sum(dim=-1).mean(dim=-1)
        self._sums[layer] = self._sums[layer] + far.sum(dim=0).double().cpu()
        self._images[layer] += len(attention)

    def value(self) -> list[list[float]]:
        """For each layer the distance of each head, in pixels."""
        return [(total / seen).tolist() for total, seen in zip(self._sums, self._images)]

    def even(self) -> float:
        """The distance of a head that attends to all patches alike, in pixels."""
        return self.distances.mean().item()


class UnitCounts:
    """On how many tokens each unit of an MLP is on, that is, has a positive input to its GELU.

    Args:
        layers: number of layers.
    """

    def __init__(self, layers: int) -> None:
        self._on: list[Tensor] = [torch.zeros(()) for _ in range(layers)]
        self._tokens = [0] * layers

    def add(self, layer: int, before: Tensor) -> None:
        """Takes in what goes into the activation of a layer, (B, L, units)."""
        self._on[layer] = self._on[layer] + (before > 0).sum(dim=(0, 1)).cpu()
        self._tokens[layer] += before.shape[0] * before.shape[1]

    def value(self) -> dict[str, list]:
        """By layer: the number of ``units`` and of ``tokens``, and what was seen of the units.

        That is how many are ``never`` and how many ``always`` on, and the :data:`QUANTILES` over
        units of the share of tokens that a unit is on for.
        """
        rows: dict[str, list] = dict(units=[], never=[], always=[], quantiles=[],
                                     tokens=list(self._tokens))
        for on, tokens in zip(self._on, self._tokens):
            rows['units'].append(len(on))
            rows['never'].append(int((on == 0).sum()))
            rows['always'].append(int((on == tokens).sum()))
            share = on.double() / tokens
            rows['quantiles'].append(
                share.quantile(torch.tensor(QUANTILES, dtype=share.dtype)).tolist())
        return rows


class Deciles:
    """The error of predictions by the importance of the patch, for seen and masked patches.

    Each image's patches are ranked by importance and cut into ten parts of equal size (fewer
    where there are fewer patches); an image counts once in each part it has patches in.
    """

    def __init__(self) -> None:
        self._errors: dict[str, list[Tensor]] = dict(seen=[], masked=[])
        self._importance: list[Tensor] = []
        self._share_seen: list[Tensor] = []

    def add(self, importance: Tensor, error: Tensor, visible: Tensor) -> None:
        """Takes a batch in.

        Args:
            importance: (B, N).
            error: (B, N) of each patch's prediction.
            visible: (B, V) raster indices of the patches seen.
        """
        parts = part_of(importance)
        seen = torch.zeros_like(importance, dtype=torch.bool).scatter(1, visible, True)
        for name, chosen in (('seen', seen), ('masked', ~seen)):
            self._errors[name].append(mean_of_parts(error, parts, chosen).cpu())
        everything = torch.ones_like(seen)
        share = importance / importance.sum(dim=1, keepdim=True)
        self._importance.append((mean_of_parts(share, parts, everything)
                                 * importance.shape[1]).cpu())
        self._share_seen.append(mean_of_parts(seen.float(), parts, everything).cpu())

    def value(self) -> dict[str, list]:
        """From the least important tenth to the most: ``importance``, ``share_seen`` and errors.

        An importance of 1 is a patch's even share. The mean error over images stands under ``seen``
        and ``masked``, its standard error under ``seen_spread`` and ``masked_spread``; None where
        nothing is.
        """
        rows = dict(importance=torch.cat(self._importance).mean(dim=0).tolist(),
                    share_seen=torch.cat(self._share_seen).mean(dim=0).tolist())
        for name, batches in self._errors.items():
            table = torch.cat(batches).double()
            rows[name], rows[f'{name}_spread'] = [], []
            for column in table.T:
                there = column[column.isfinite()]
                rows[name].append(there.mean().item() if len(there) else None)
                rows[f'{name}_spread'].append(
                    (there.std() / len(there)**0.5).item() if len(there) > 1 else None)
        return rows


def patch_distances(grid: tuple[int, int]) -> Tensor:
    """(N, N) distances between the centres of patches, in patches."""
    rows, columns = grid
    at = torch.cartesian_prod(torch.arange(rows).float(), torch.arange(columns).float())
    return torch.cdist(at, at, compute_mode='donot_use_mm_for_euclid_dist')


def part_of(importance: Tensor) -> Tensor:
    """(B, N) the tenth of its image that each patch is in, 0 the least important.

    With fewer than ten patches there are as many parts as patches.
    """
    patches = importance.shape[1]
    rank = importance.argsort(dim=1, stable=True).argsort(dim=1)
    return rank * min(DECILES, patches) // patches


def mean_of_parts(values: Tensor, parts: Tensor, chosen: Tensor) -> Tensor:
    """Means (B, parts) of the chosen patches' values; NaN where a part has none.

    Args:
        values: (B, N).
        parts: (B, N) of :func:`part_of`.
        chosen: (B, N) bool.
    """
    number = min(DECILES, parts.shape[1])
    weight = chosen.to(values.dtype)
    empty = values.new_zeros(len(values), number)
    return (empty.scatter_add(1, parts, values * weight) /
            empty.scatter_add(1, parts, weight))
