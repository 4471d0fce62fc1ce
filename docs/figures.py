"""Tables and bars of the site, from recorded runs: the self-check's JSON and `bench/results.json`."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BARS = {
    "A loss of logits and its gradient": (
        "kl-grad-512x32000", "kl-grad-256x128256", "kl-grad-512x32000-bf16", "kl-grad-4096x1024", "js-grad-512x32000",
        "generalized-js-grad", "jeffreys-grad", "tv-grad", "hellinger-grad", "cross-entropy-grad",
    ),
    "Short rows, and values without gradients": (
        "kl-65536x10", "kl-grad-65536x10", "kl-8192x100", "kl-grad-8192x100", "kl-4096x1024", "kl-512x32000",
    ),
    "Probabilities and all pairs": (
        "simplex-kl-grad-65536x256", "simplex-js-grad-65536x256", "simplex-kl-65536x256", "simplex-js-65536x256",
        "pairs-js-500", "pairs-half-js-1000", "pairs-kl-500", "pairs-nearest-js-200",
    ),
    "Gaussians": (
        "gaussian-kl-100000x8", "standard-kl-grad-65536x64", "pairs-gaussian-kl-500x8", "pairs-gaussian-js-500x8",
    ),
    "The fused head": (
        "fused-kl-grad-2048x512x32000", "fused-kl-grad-2048x512x32000-bf16", "fused-kl-grad-512x512x131072",
        "fused-kl-grad-256x256x262144", "fused-js-grad-2048x512x32000",
    ),
}  # fmt: skip


def accuracy() -> str:
    """Worst errors by verb and family, from `python -m jaxdiv --json`."""
    found = json.loads((ROOT / "docs/data/selfcheck.json").read_text())
    about, versions = found["device"], found["versions"]
    text = [
        f"Measured on: {about['count']} x {about['platform']}, jax {versions['jax']}, {len(found['rows'])} checks.",
        "",
    ]
    rows = [row for row in found["rows"] if row["dtype"] == "float32"]
    tables = {}
    for row in rows:
        family, name, rest = re.fullmatch(r"(\w+)\.(\w+)(.*)", row["name"]).groups()
        options = [x for x in re.findall(r"[^(),\s]+", rest) if "=" in x]
        forms = [x for x in re.findall(r"[^(),\s]+", rest) if "=" not in x]
        discrete = family in ("categorical", "simplex", "bernoulli")
        column = family if discrete else forms[0] if forms else family
        verb = f"`{name}`" + (f" ({', '.join(options)})" if options else "")
        value, slope = (_number(row[key]) for key in ("value_ulps", "gradient_ulps"))
        tables.setdefault("discrete" if discrete else "Gaussian", {}).setdefault(verb, {})[column] = (
            f"{value} / {slope}"
        )
    for title, table in tables.items():
        columns = list(dict.fromkeys(column for cells in table.values() for column in cells))
        text += [f"### Families: {title}", "", "| | " + " | ".join(f"`{x}`" for x in columns) + " |"]
        text += ["|---|" + "--:|" * len(columns)]
        text += [f"| {verb} | " + " | ".join(cells.get(x, "") for x in columns) + " |" for verb, cells in table.items()]
        text += [""]
    negatives, nans = (sum(row[key] for row in rows) for key in ("negatives", "nans"))
    return "\n".join([*text, f"Negative values: {negatives}. Values that are NaN: {nans}."])


def _number(x):
    return "inf" if x is None else f"{x:.2g}" if x < 100 else f"{x:.0f}"


def near_equality() -> str:
    """What `python -m bench.accuracy` printed, its titles as headings."""
    text = (ROOT / "docs/data/near_equality.md").read_text()
    return re.sub(r"^([^|\n].*?): (worst error.*)$", r"### \1\n\n\2", text, flags=re.MULTILINE).replace(
        "Worst", "worst"
    )


def speed(folder: Path) -> str:
    """Bars of the time of each contender relative to ours, and the whole table."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = json.loads((ROOT / "bench/results.json").read_text())
    text = []
    for run in runs.values():
        machine, cases = run["machine"], run["cases"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        text += [f"## {machine['device']} ({machine['processor']}), {machine['date']}", "", f"{versions}.", ""]
        for title, names in BARS.items():
            there = {name: cases[name] for name in names if name in cases}
            if there:
                file = re.sub(r"\W+", "-", f"{machine['backend']}-{title}".lower()) + ".svg"
                _bars(folder / file, there)
                words = f"{title}: time of each library as a multiple of ours, a bar to a case"
                text += [f"### {title}", "", f'<img class="wide" src="assets/speed/{file}" alt="{words}">', ""]
        text += ["### Every case", "", *_table(cases), ""]
    return "\n".join(text)


def _bars(file, cases):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    grey, colours = "#7f8c8d", ("#e8590c", "#4c6ef5", "#ae3ec9", "#f59f00", "#495057", "#868e96")
    bars = [
        (name, who, 1 / x["ours_over_it"])
        for name, those in cases.items()
        for who, x in those.items()
        if who != "jaxdiv"
    ]
    bars = [(name, who, x) for name, who, x in bars if who != "c"]
    peers = list(dict.fromkeys(who for _, who, _ in bars))
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxdiv", "font.size": 10, "text.color": grey}):
        height = 0.6 + 0.2 * len(bars) + 0.3 * len(cases)
        figure, axes = pyplot.subplots(figsize=(4.8, height), layout="constrained")
        low, high = min(0.5, min(x for *_, x in bars) * 0.9), max(x for *_, x in bars) * 4
        y = 0.0
        for name in cases:
            axes.text(low, y, name, va="center", fontsize=10, fontweight="bold")
            for who, x in ((who, x) for case, who, x in bars if case == name):
                y += 1
                axes.barh(y, x - low, left=low, height=0.8, color=colours[peers.index(who) % len(colours)])
                axes.text(high, y, f"{who} {x:.2g}", va="center", ha="right", fontsize=9)
            y += 1.5
        axes.axvline(1, color="#009688", linewidth=2)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(y, -1)
        axes.set_yticks([])
        axes.set_xlabel("time as a multiple of jaxdiv's (the line)", color=grey)
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.tick_params(colors=grey)
        axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        figure.savefig(file, transparent=True, metadata={"Date": None})
        pyplot.close(figure)


def _table(cases):
    yield "| case | who | CPU ms | wall ms | ours / it | goal | temporaries, MiB | compile, s |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for name, those in cases.items():
        for who, x in those.items():
            cells = [
                *(f"{x[key]:.2f}" if key in x else "" for key in ("cpu_ms", "wall_ms")),
                "" if who == "jaxdiv" else f"{x['ours_over_it']:.2f} [{x['spread'][0]:.2f}, {x['spread'][1]:.2f}]",
                *(
                    f"{x[key]:.{n}f}" if key in x else ""
                    for key, n in (("goal", 2), ("temporaries_mib", 1), ("compile_s", 1))
                ),
            ]
            yield f"| {name} | {who} | " + " | ".join(cells) + " |"
