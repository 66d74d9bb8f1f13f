"""What is kept on this machine: `cache`."""

from __future__ import annotations

import shutil

import click


@click.command()
@click.option("--clear", is_flag=True, help="Remove cached images; synthetic data and weights stay.")
def cache(clear: bool) -> None:
    """Show what medxfer keeps on this machine, and where."""
    from ..data.cache_room import limit_bytes
    from ..files import home

    place = home()
    for folder in sorted(one for one in place.iterdir() if one.is_dir()):
        files = [file for file in folder.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        click.echo(f"{folder}: {len(files)} files, {size:.1f} MB")
    click.echo(f"{place / 'cache'} may hold {limit_bytes() / 1e9:.1f} GB (MEDXFER_CACHE_BYTES)")
    if clear:
        shutil.rmtree(place / "cache", ignore_errors=True)
        click.echo(f"removed {place / 'cache'}")


COMMANDS = (cache,)
