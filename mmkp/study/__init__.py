"""The fusion study: arms x seeds x subsets x corruptions at equal budgets, and what follows from them.

The way of a study: `recipe` (what is asked) -> `plan` (cells, and what each depends on) -> `run` (one process per
cell: `worker`) -> `cell` (train, predict, `cost`) -> `results` (a Parquet file per cell) -> `report` (from these files
alone: `grid_results`, `statistics`, `analysis`, `robustness`, `shapley`, `tables`, `plots`, `pictures`, `verdict`).
"""
