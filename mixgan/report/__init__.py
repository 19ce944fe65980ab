"""One way to make a self-contained page, its plots and its image grids, used by every report of the project."""
