"""What the page shows of each record: a function of nothing but the record, which gives Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from analyses.bench.causal.record import CausalRecord
from analyses.bench.causal.result import CausalBench
from analyses.bench.gpu.record import GPURecord
from analyses.bench.gpu.tables import markdown as gpu_tables
from analyses.bench.images.result import ImagesBench
from analyses.bench.multi_gpu.result import MultiGPUBench
from analyses.bench.operators.result import OpsBench
from analyses.explain.explanation import WORDS
from analyses.result import Table
from analyses.study.rivals import SparseRivals
from analyses.study.speed import TrainingSpeed
from analyses.study.tuning import edges
from analyses.study.verdicts import UNTESTED

Record = Mapping[str, Any]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table whose first columns are words."""
    return Table(columns, rows, words=words).markdown()


def percent(value: float | None, digits: int = 2) -> str:
    """A share as percent; "–" where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def rows_of(record: Record) -> str:
    """Any record with `rows`: a column for each field that is a number or a word."""
    rows: list[Record] = list(record.get("rows") or ())
    columns = [key for key, value in rows[0].items() if isinstance(value, str | int | float)] if rows else []
    if not columns:
        return "Its content has no rows to show here."
    cells = [[_cell(row.get(key)) for key in columns] for row in rows]
    return table(
        [key.replace("_", " ") for key in columns], cells, sum(isinstance(rows[0][key], str) for key in columns)
    )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def claims(record: Record) -> str:
    """Claims and verdicts."""
    rows, held = [], 0
    for row in record["claims"]:
        claim, (low, high) = row["claim"], row["interval"]
        held += row["verdict"] == "holds"
        bound = f"> {claim['bound']:g}" if claim["kind"] == "above" else f"within ±{claim['bound']:g}"
        difference = "–" if low is None else f"{row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
        rows.append(
            [f"{claim['words']} ({claim['source']})", row.get("family", "fashion-mnist"), claim["paper"], difference,
             bound, row["verdict"]]
        )  # fmt: skip
    columns = ["Claim", "Data", "Paper", "Ours: difference", "Holds if the interval is", "Verdict"]
    tested = sum(row["verdict"] != UNTESTED for row in record["claims"])
    left = f" {len(record['missing'])} runs of the plan are not made yet." if record["missing"] else ""
    return f"{held} of {tested} tested claims hold.{left}\n\n{table(columns, rows, 6)}"


def long_runs(record: Record) -> str:
    """Each run with what its position biases do and are."""
    rows = []
    for run in record["runs"]:
        places = run["places"] or {}
        near, start, without = (places.get(key) for key in ("nearness", "start_correlation", "without"))
        pruned = [run["pruned"].get(keep) for keep in ("1", "4", "16")]
        rows.append([
            run["configuration"], run["family"], str(run["seed"]), str(run["epochs"]), f"{run['accuracy']:.2f}",
            *("–" if value is None else f"{value:.2f}" for value in (without, *pruned, start)),
            "–" if near is None else ", ".join(f"{value:.2f}" for value in near),
            f"{places['distance']:.2f}" if places else "–",
        ])  # fmt: skip
    columns = ["Model", "Data", "Seed", "Epochs", "Test accuracy, %", "with w = 0", "cut to 1 offset", "to 4", "to 16",
               "Start's correlation", "Spearman of w with nearness, by layer", "Mean distance (patches)"]  # fmt: skip
    missing = f"\n\nNot trained yet: {', '.join(record['missing'])}." if record["missing"] else ""
    return table(columns, rows, 2) + missing


def start_sweep(record: Record) -> str:
    """Accuracy and what is left of the start, by start and learning rate of the biases."""
    rows = [
        [row["data"], row["configuration"], f"{row['start']:g}", f"× {row['scale']:g}", str(row["seed"]),
         f"{row['val_accuracy']:.1f} %", f"{row['without']:.1f} %", f"{row['start_correlation']:.2f}",
         f"{100 * row['stayed']:.0f} %"]
        for row in record["rows"]
    ]  # fmt: skip
    columns = ["Data", "Configuration", "Start of w'", "Rate of biases", "Seed", "Validation", "with w = 0",
               "Correlation with the start", "Strongest offset stayed"]  # fmt: skip
    return f"{len(rows)} of {record['planned']} runs.\n\n{table(columns, rows, 2)}"


def explain(record: Record) -> str:
    """How far offsets explain attention, and what all heads at once lose."""
    rows, columns = [], list(dict.fromkeys(edit for model in record.values() for edit in model["cumulative"]))
    for name, model in record.items():
        share = [value for layer in model["variance_explained"] for value in layer if value is not None]
        ends = {edit: points[-1] for edit, points in model["cumulative"].items()}
        cells = [_change(ends[edit]) if edit in ends else "–" for edit in columns]
        rows.append([name, percent(model["accuracy"]), percent(sum(share) / len(share), 1), *cells])
    heads = ["Model", "Accuracy", "Variance explained by offset", *(WORDS[edit] for edit in columns)]
    return "All heads edited at once: change of accuracy, points.\n\n" + table(heads, rows)


def trained_vit(record: Record) -> str:
    """Heads that read one offset, and what a probe loses where they see nothing else."""
    third = set(record["over_a_third"]["which"])
    heads = [
        [f"{head['layer']}.{head['head']}", head["place"], f"{100 * head['share']:.1f} %",
         f"{head['distance']:.2f} ({head['random_distance']:.2f})"]
        for head in record["heads"] if f"{head['layer']}.{head['head']}" in third
    ]  # fmt: skip
    edited = record["explain"]
    rows = [
        [str(count), *(_change(points[place]) for points in edited["cumulative"].values())]
        for place, count in enumerate(edited["counts"])
    ]
    return "\n\n".join(
        [
            f"{record['model']}: {record['weights']}. {record['images']} photographs; {len(heads)} of "
            f"{record['over_a_third']['of']} heads put over a third of their attention on one offset:",
            table(["Head", "Offset", "Attention on it", "Mean distance, patches (random weights)"], heads, 2),
            f"Heads at once, and the change of a linear probe's accuracy on {edited['data']} "
            f"({percent(edited['accuracy'], 1)}), points:",
            table(["Heads", *(WORDS[edit] for edit in edited["cumulative"])], rows, 0),
        ]
    )


def ablation(record: Record) -> str:
    """How many heads can be replaced, by order; what replacements keep, with heads in the first order."""
    within = [
        [order, str(found["heads"]), str(found["surely"])] for order, found in record["within"].items()
    ]  # fmt: skip
    counts = [point["count"] for point in min((curve["points"] for curve in record["curves"]), key=len)]
    rows = []
    for curve in record["curves"]:
        at = {point["count"]: point for point in curve["points"]}
        found = [curve["areas"].get(name) for name in AREAS]
        areas = ["–" if one is None else f"{one['value']:.2f}" for one in found]
        rows.append([curve["order"], curve["words"], *(_change(at[count]) for count in counts), *areas])
    columns = ["Order", "Heads replaced by", *(f"{count} heads" for count in counts), *(AREAS[name] for name in AREAS)]
    parts = [
        f"{record['model']} on {record['data']}, {record['images']} test images, {percent(record['score'], 1)} "
        f"intact. Of {record['heads']} heads, so many can be replaced within {record['tolerance_points']:g} point(s):",
        table(["Order", "Heads", "Heads, by the whole interval"], within),
        "Change of accuracy, points, and areas under the curves: of the accuracy over the intact one's, and of "
        "faithfulness by ablation:",
        table(columns, rows, 2),
    ]
    if record["needed"]:
        sure = sum(one["interval"][0] > 0 for one in record["needed"])
        parts.append(
            f"Of the {len(record['needed'])} heads within, in the order that goes farthest, {sure} lose more, by the "
            "whole interval, when uniform attention takes the place of their offsets."
        )
    return "\n\n".join(parts)


AREAS = {"retained": "Retained", "uniform": "by uniform", "mean": "by mean", "resample": "by resample",
         "zero": "by zero"}  # fmt: skip
"""Areas by their names in a record, as columns."""


def tuning(record: Record) -> str:
    """The learning rates that were chosen."""
    rows = [
        [family, name, f"{chosen['lr']:g}", f"× {chosen['bias_lr_scale']:g}", f"{chosen['val_accuracy']:.1f} %"]
        for family, configurations in record["chosen"].items() for name, chosen in configurations.items()
    ]  # fmt: skip
    on_edge = [edges(chosen) for each in record["chosen"].values() for chosen in each.values()]
    return table(["Data", "Configuration", "Learning rate", "Rate of biases", "Validation"], rows, 2) + (
        f"\n\nThe best pair lies on the edge of what was tried for {sum(map(bool, on_edge))} of {len(on_edge)}."
    )


def _change(effect: Record) -> str:
    """A change of accuracy with its interval, points."""
    low, high = effect["interval"]
    return f"{100 * effect['change']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def ladder(record: Record) -> str:
    """Accuracy by offsets kept for each criterion, and what the cut costs on the clock."""
    parts, curves = [], record["curves"]
    kinds = dict.fromkeys((curve["parent"], curve["budget"], curve["schedule"]) for curve in curves)
    for parent, budget, schedule in kinds:
        chosen = [c for c in curves if (c["parent"], c["budget"], c["schedule"]) == (parent, budget, schedule)]
        criteria = list(dict.fromkeys(curve["criterion"] for curve in chosen))
        keeps = sorted({curve["keep"] for curve in chosen}, reverse=True)
        found = {(curve["criterion"], curve["keep"]): curve for curve in chosen}
        rows = [
            [f"{keep:g}", *(_rung(found.get((criterion, keep))) for criterion in criteria)] for keep in keeps
        ]  # fmt: skip
        first = chosen[0]
        parts.append(
            f"{parent.capitalize()} parents ({first['checkpoints']}, {percent(first['parent_mean'])}), budget by "
            f"{budget}, {schedule}: test accuracy as cut, and fine-tuned where it was.\n\n"
            + table(["Offsets a head", *criteria], rows, 0)
        )
    parts.append(f"Masked against indexed: |Δlogit| at most {record['max_abs_logit_difference']:.1e}.")
    if "indexed_core_speedup_cpu" in record:
        whole = ", ".join(
            f"{one['speedup']:.2f} at batch {one['batch']}" for one in record["whole_model"]["dense_over_indexed"]
        )
        parts.append(
            f"One offset's core ran {record['indexed_core_speedup_cpu']:.1f} times faster than the dense layer; the "
            f"whole model {record['whole_model']['model']} took this many times the indexed one's time: {whole}."
        )
    return "\n\n".join(parts)


def _rung(curve: Record | None) -> str:
    if curve is None:
        return "–"
    tuned = "" if curve["finetuned_mean"] is None else f" / {percent(curve['finetuned_mean'])}"
    return percent(curve["pruned_mean"]) + tuned


def single_ladder(record: Record) -> str:
    """The rungs of one checkpoint."""
    rows = [
        [row["name"], f"{row['keep']:g}", percent(row["accuracy"]), f"{row['bytes'] / 1e3:,.0f}",
         f"{row['latency_mean_ms']:.1f} ± {row['latency_sd_ms']:.1f}", row["form"]]
        for row in record["rungs"]
    ]  # fmt: skip
    columns = ["Rung", "Offsets a head", f"Accuracy of {record['images']:,} images", "kB", "ms a batch", "Form"]
    return table(columns, rows) + (
        f"\n\nMasked against indexed: |Δlogit| at most {record['max_abs_logit_difference']:.1e}."
    )


def digits_accuracy(record: Record) -> str:
    """Accuracy of the recipes over seeds."""
    rows = [
        [name, percent(row["accuracy_mean"]), percent(row["accuracy_lowest"]), f"{row['seconds_longest']:.0f} s"]
        for name, row in record["recipes"].items()
    ]
    clock = record.get("clock", "wall clock")
    return table([f"Recipe, {len(record['seeds'])} seeds", "Mean", "Lowest", f"Longest training, {clock}"], rows)


def multi_gpu(record: Record) -> str:
    """Speed, memory and accuracy by number of GPUs."""
    found = MultiGPUBench.read(record)
    resumed = found.markdown().split("\n\n")[1] if found.resumed else ""
    return f"{found.table().markdown()}\n\n{resumed}"


def multi_gpu_files(record: Record) -> str:
    """Speed, efficiency, memory and host cores by number of GPUs, from memory and from files."""
    resumed = record["resumed"]
    words = "\n\nThe resumed run is not measured yet." if resumed is None else (
        f"\n\nA run from files on {resumed['gpus_before']} GPUs, ended after {resumed['epochs_before']} whole epochs, "
        f"went on with {resumed['gpus_after']} to its {resumed['epochs']} epochs."
    )  # fmt: skip
    rows = [
        [str(row["gpus"]), row["data"], f"{row['images_per_second']:,.0f}", f"{row['efficiency']:.3f}",
         f"{row['peak_memory_mib']:,.0f}", f"{row['host_cores']:.1f}"]
        for row in record["rows"]
    ]  # fmt: skip
    columns = ["GPUs", "Data", "Images/s", "Efficiency", "Peak, MiB a GPU", "Host cores"]
    return f"{record['cores']} processor cores.\n\n{table(columns, rows, 2)}{words}"


def images(record: Record) -> str:
    """Stages and runs, images a second, and what they come to."""
    found = ImagesBench.read(record)
    memory = ", ".join(f"{value:,.0f}" for value in found.measured.memory_mib)
    parts = [found.table().markdown()]
    if found.measured.ratios:
        names = {"train_files": "training", "train_deit": "training with DeiT's augmentation", "evaluate_files":
                 "evaluation over the forward pass"}  # fmt: skip
        ratios = ", ".join(f"{names[name]} {value:.2f}" for name, value in found.measured.ratios.items())
        parts.append(f"From files over the same from memory: {ratios}. The slowest stage: {found.measured.bottleneck}.")
    parts.append(f"Host memory of the loader after each pass over the files, MiB: {memory}.")
    return "\n\n".join(parts)


def sparse_rivals(record: Record) -> str:
    """Accuracy over positions kept, a way and setting a row."""
    return SparseRivals.read(record).table().markdown()


def ops(record: Record) -> str:
    """Ratios, and how time and memory grow."""
    found = OpsBench.read(record)
    growth = [
        [name, f"{found.memory_exponents[name]:.2f}", f"{found.time_exponents[name]:.2f}"]
        for name in found.memory_exponents
    ]
    return found.table().markdown() + "\n\nGrowth with length: exponents of T.\n\n" + table(
        ["Operator", "Peak memory", "Time"], growth
    )  # fmt: skip


def gpu(record: Record) -> str:
    """Comparisons, operators, models and rooflines, their headings below the page's."""
    text = gpu_tables(GPURecord.read(record))
    return "\n".join(f"#{line}" if line.startswith("##") else line for line in text.splitlines())


def causal(record: Record) -> str:
    """Ratios, operators, training steps and generation."""
    return CausalBench(CausalRecord.read(record)).tables()


def attention_cost(record: Record) -> str:
    """Memory and time of streaming relative attention."""
    rows = [
        [images, f"{record['peak_growth_mib'][images]:.0f} MiB", f"{record['time_ratio'][images]:.2f}"]
        for images in record["peak_growth_mib"]
    ]
    return table(["Images", "Growth of peak memory", "Time over the forward pass alone"], rows, 0)


def autoregression(record: Record) -> str:
    """Bits by setting, and the claims."""
    seeds = {run["seed"] for run in record["runs"]}
    settings = [
        [row["task"], row["words"], ", ".join(map(str, row["tables"])), str(row["seeds"]), f"{row['train']:.3f}",
         f"{row['test']:.3f}"]
        for row in record["settings"]
    ]  # fmt: skip
    claims = []
    for row in record["claims"]:
        low, high = row["interval"]
        interval = "–" if low is None else f"[{low:+.3f}, {high:+.3f}]"
        difference = "–" if row["difference"] is None else f"{row['difference']:+.3f}"
        claims.append([f"{row['words']} ({row['source']}, {row['measure']})", row["paper"], difference, interval,
                       row["verdict"]])  # fmt: skip
    data = "; ".join(f"{task}: {words}" for task, words in record["data"].items())
    few = "" if len(seeds) > 1 else " One seed: differences are shown, and nothing is tested."
    missing = f"\n\nNot trained yet: {len(record['missing'])} runs." if record["missing"] else ""
    return "\n\n".join([
        f"{data}.{few}",
        table(["Data", "Decoder", "Tables", "Seeds", "Train, bits", "Test, bits"], settings, 2),
        table(["Claim", "Paper's bits", "Bits fewer", "95 %", "Verdict"], claims, 2),
    ]) + missing  # fmt: skip


def generation(record: Record) -> str:
    """Speeds, and AFT's over the Transformer's."""
    ratios = {(row["mixer"], row["batch"], row["context"]): row["ratio"] for row in record["ratios"]}
    rows = []
    for row in record["speeds"]:
        ratio = ratios.get((row["mixer"], row["batch"], row["context"]))
        rows.append([
            row["mixer"], str(row["batch"]), f"{row['context']:,}", f"{row['milliseconds']:.3f}",
            f"{row['tokens_per_second']:,.0f}", "–" if ratio is None else f"{ratio:.2f}", f"{row['state_mib']:,.1f}",
        ])  # fmt: skip
    columns = ["Mixer", "Batch", "Context", "ms a step", "Tokens/s", "Over the Transformer", "State, MiB"]
    shape = record["shape"]
    return f"{shape['depth']} blocks, d = {shape['embed_dim']}, {record['dtype']}.\n\n{table(columns, rows)}"


def training_speed(record: Record) -> str:
    """A model and a way to run it a row."""
    return TrainingSpeed.read(record).table().markdown()


def app_costs(record: Record) -> str:
    """What was measured of the app, with how busy the machine was."""
    rows = [
        ["server's start up to the first plot", f"{record['first_plot_s']:.1f} s"],
        ["95th percentile of a click, until it is read", f"{record['click_shown_p95_ms']:.0f} ms"],
        ["95th percentile of a click, until it is in the address", f"{record['click_p95_ms']:.0f} ms"],
        ["processor time of a click", f"{record['click_cpu_s']:.2f} s"],
        ["data sent of a click", f"{record['click_bytes'] / 1e3:.1f} kB"],
        ["cold page, 6 layers", f"{record['cold_small_s']:.1f} s"],
        ["cold page, 12 layers of AFT-conv small", f"{record['cold_large_s']:.1f} s"],
        ["digits pruned at one k", f"{record['prune_digits_s']:.1f} s"],
        [f"most memory over {record['interactions']} clicks and four models", f"{record['memory_mb']:.0f} MB"],
    ]
    busy = f"Before the measurement the machine was busy by {record['busy_percent_before']:.0f} %."
    return f"{table(['what', 'measured'], rows)}\n\n{busy}"
