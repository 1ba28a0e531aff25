"""Exact Shapley values: what each player adds to a game, averaged over all orders in which they could have joined."""

from __future__ import annotations

from math import factorial

import numpy as np
from jaxtyping import Float

from mmkp.errors import InputError

MOST_PLAYERS = 16  # 65,536 subsets


def shapley_values(values: Float[np.ndarray, " subsets *items"]) -> Float[np.ndarray, " players *items"]:
    """The Shapley values of many games at once.

        phi_i = sum_{S without i} |S|! (M - |S| - 1)! / M! (v(S + i) - v(S))

    Args:
        values: v of all 2^M subsets of M players; player i belongs to the subset of row s where bit i of s is set.
            Row 0 is the empty one.

    Returns:
        (M, ...) in the unit of the values; their sum is v(all) - v(none). NaN where a value is.

    Raises:
        InputError: a number of rows that is no power of 2, or more than 16 players.

    Source: Shapley, A Value for n-Person Games, 1953, equation 13.
    """
    players = len(values).bit_length() - 1
    if not 1 <= players <= MOST_PLAYERS or len(values) != 1 << players:
        raise InputError("shapley_values", expected=f"2^M rows, M from 1 to {MOST_PLAYERS}", got=f"{len(values)} rows")
    return np.tensordot(_weights(players), values.astype(np.float64), axes=1)


def _weights(players: int) -> Float[np.ndarray, "players subsets"]:
    """What each subset's value counts for each player: above 0 where the player belongs to it, else below."""
    subsets = np.arange(1 << players)
    holds = (subsets[None] >> np.arange(players)[:, None] & 1).astype(bool)
    size = holds.sum(0)
    share = np.array([factorial(s) * factorial(players - s - 1) / factorial(players) for s in range(players)])
    return np.where(holds, share[size - 1], -share[np.minimum(size, players - 1)])
