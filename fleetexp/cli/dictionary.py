"""The data dictionary on a terminal: what there is to ask for, with units."""

from __future__ import annotations

import textwrap

import click

from fleetexp.cli.output import emit_json, width, wrapped


def show_all(as_json: bool) -> None:
    """List every view with its columns, and the tables behind them."""
    from fleetexp.store.dictionary import relations
    from fleetexp.store.views.definition import OF_PERIOD

    found = relations()
    if as_json:
        views = [relation.as_json() for relation in found if relation.is_view]
        tables = [relation.as_json() for relation in found if not relation.is_view]
        emit_json({"views": views, "tables": tables})
        return
    for relation in found:
        if not relation.is_view:
            continue
        click.echo(wrapped(f"{relation.name}: {relation.meaning}"))
        shared = OF_PERIOD.keys() <= relation.columns.keys()
        if shared:
            click.echo(wrapped(f"{', '.join(OF_PERIOD)}: the period, as in period_quality", indent="    "))
        for name, meaning in relation.columns.items():
            if not shared or name not in OF_PERIOD or relation.name == "period_quality":
                click.echo(wrapped(f"{name}: {meaning}", indent="    "))
        click.echo()
    names = ", ".join(relation.name for relation in found if not relation.is_view)
    click.echo(wrapped(f"tables behind them: {names}"))
    click.echo("\ncolumns of one: fleetexp sql NAME")
    click.echo("try: fleetexp sql 'select * from run_summary'")


def show_one(name: str, as_json: bool) -> bool:
    """Show the columns of one view or table; False where there is none of that name."""
    from fleetexp.store.dictionary import relations

    relation = next((one for one in relations() if one.name == name.lower()), None)
    if relation is None:
        return False
    if as_json:
        emit_json(relation.as_json())
        return True
    click.echo(wrapped(f"{relation.name}: {relation.meaning}"))
    click.echo()
    names = max(map(len, relation.columns))
    for column, meaning in relation.columns.items():
        kind = relation.kinds[column].value
        indent = " " * (names + 16)
        text = f"{column:<{names}}  {kind:<12}  {meaning}"
        click.echo(textwrap.fill(text, max(width(), names + 40), subsequent_indent=indent, break_on_hyphens=False))
    click.echo(f"\ntry: fleetexp sql 'select * from {relation.name}'")  # noqa: S608 - shown, not run
    return True
