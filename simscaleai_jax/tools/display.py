"""Figures on a screen, or in a file where there is none."""

from pathlib import Path


def figure_file(save: str | None, command: str) -> str | None:
    """Where a command's figure goes: the file asked for, None for the screen, or outputs/COMMAND.png without one."""
    if save is not None:
        return save
    import matplotlib

    has_window = matplotlib.get_backend().lower() not in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")
    return None if has_window else str(Path("outputs") / f"{command}.png")


def show_or_name(file: str | None, save: str | None) -> None:
    """Shows the open figure, or says where it was written: `file` of `figure_file(save, ...)`."""
    if file is None:
        import matplotlib.pyplot as plt

        plt.show()
    elif save is None:
        print(f"Wrote {file}, because there is no display (--save FILE chooses another).")
    else:
        print(f"Wrote {file}.")
