"""The command line: python -m lensnb COMMAND. Each command imports what it needs when it runs, so --help is quick."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lensnb.run.options import whole
from lensnb.system import available_cores

EPILOG = "exit status: 0 done, 1 failed, 2 wrong usage or input. LENSNB_TRACEBACK=1 shows where an error arose."
EXAMPLES = {
    "evaluate": """examples:
  python -m lensnb evaluate --truth DeepLesion_manual_1K_test_release.pkl --predictions mine.csv --json result.json
  python -m lensnb evaluate --truth truth.csv --predictions mine.csv --overlap iou

A csv of the truth has the columns volume,x1,y1,z1,x2,y2,z2, and names a volume without lesions in a row whose
coordinates are empty. The predictions have score besides. Boxes include both ends; z are slice numbers.""",
    "evaluate-luna": """example:
  python -m lensnb evaluate-luna --annotations annotations.csv --excluded annotations_excluded.csv \\
      --seriesuids seriesuids.csv --submission mine.csv --json result.json

The submission has the columns seriesuid,coordX,coordY,coordZ,probability (LPS mm).""",
    "detect": """examples:
  python -m lensnb detect CT/ --output found                     (a DICOM folder)
  python -m lensnb detect ct.nii.gz --output found --weights my-run/weights.safetensors

Writes detections.csv (every detection, best first), overlay.png (the best ones), detections.mrk.json (drag it into
3D Slicer, onto the CT) and about.json (warnings, and what the columns mean). A score says how sure the network is; most
detections have low ones. Not for clinical use.""",
    "train": """examples:
  python -m lensnb train multi-mined --profile phantom --seed 0
  torchrun --nproc-per-node 4 -m lensnb train multi-mined --profile paper

An interrupted training continues; a finished one is left alone.""",
    "seeds": """example, after ./run_all.sh:
  ./run_all.sh --seed 1 --only table2
  ./run_all.sh --seed 2 --only table2
  python -m lensnb seeds

Writes figures/<profile>/seeds.md and seeds.csv: each row, each claim and the audit of mining, seed by seed.""",
    "prepare": """examples:
  python -m lensnb prepare --profile phantom
  python -m lensnb prepare --profile paper --data /where/the/datasets/lie

Says first how much disk the volumes need, and how long it will take while it runs; an interrupted start continues.""",
    "benchmark": """example:
  python -m lensnb benchmark --root /where/the/datasets/lie --volumes 8

Prepares some volumes of each dataset into a temporary folder, on one core beside what SimpleITK alone needs to read and
resample the same files, and on all cores. Disks are not measured: the files are in memory from the second time on.""",
    "labels": """examples:
  python -m lensnb labels sentences.csv --ontology lesion_ontology_181022.xlsx --output labels.csv
  python -m lensnb labels sentences.csv --ontology lesion_ontology.csv --output labels.csv --examples my-sentences/

The csv has the column sentence; BOOKMARK stands in it where the lesion of interest is linked, OTHER_BMK where another
one is, and a sentence that is about two lesions stands there twice. Other columns are kept. Each row of the output is a
label: relevant, uncertain or irrelevant for the lesion. A label without a mention follows from another one.""",
    "data": """examples:
  python -m lensnb data check --root /where/the/datasets/lie
  python -m lensnb data check --root /where/the/datasets/lie --read --workers 16 --list problems.csv

Counts what is there and says where to get the rest; downloads nothing. A part of a dataset can be used: what is
missing or broken is left out, named and counted. Exit status: 0 everything is there and whole, 1 something is not.""",
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of this program."""

    def error(self, message: str) -> None:
        sys.stderr.write(f"lensnb: {message} (`{self.prog} --help` explains)\n")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 wrong usage or input."""
    options = parser().parse_args(arguments)
    return attempt(lambda: options.run(options))


def attempt(action: Callable[[], int | None]) -> int:
    """Do something and return the exit status; what goes wrong outside this program is told in one line."""
    try:
        return action() or 0
    except (FileNotFoundError, ValueError) as error:
        return _fail(error, 2)
    except (OSError, FloatingPointError, MemoryError, RuntimeError) as error:  # torch's are RuntimeErrors
        return _fail(error, 1)
    except KeyboardInterrupt:
        sys.stderr.write("lensnb: interrupted; the same command continues\n")
        return 130


def _fail(error: BaseException, status: int) -> int:
    if os.environ.get("LENSNB_TRACEBACK"):
        raise error
    text = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:  # without its number
        text = f"{error.filename}: {error.strerror}"
    sys.stderr.write(f"lensnb: {' '.join(text.split()) or type(error).__name__}\n")
    return status


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run` to the function that does it."""
    top = _Parser(prog="python -m lensnb", description="Universal lesion detection in CT (LENS).", epilog=EPILOG)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, run, about: str) -> argparse.ArgumentParser:
        layout = argparse.RawDescriptionHelpFormatter
        sentence = f"{about[0].upper()}{about[1:]}."
        command = commands.add_parser(
            name, help=about, description=sentence, epilog=EXAMPLES.get(name), formatter_class=layout
        )
        command.set_defaults(run=run)
        return command

    command = add("evaluate", evaluate, "score predictions against 3D boxes, as the LENS authors do")
    command.add_argument("--truth", type=Path, required=True, metavar="FILE", help="the published pickle, or a csv")
    command.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="csv with a score")
    command.add_argument("--split", default="test", help="which part of the pickle (default: test; a csv has no parts)")
    command.add_argument("--overlap", choices=("iobb", "iou"), default="iobb", help="default: iobb, the official one")
    command.add_argument("--threshold", type=_fraction, default=0.3, help="overlap that makes a hit (default: 0.3)")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the result, with the stricter rules, here")

    command = add("evaluate-luna", evaluate_luna, "score a LUNA16 submission by the official rules")
    for name, about in (
        ("annotations", "the nodules"),
        ("excluded", "findings on which marks are ignored"),
        ("seriesuids", "the scans, one a line"),
        ("submission", "the marks"),
    ):
        command.add_argument(f"--{name}", type=Path, required=True, metavar="CSV", help=about)
    command.add_argument("--json", type=Path, metavar="FILE", help="write the result here")

    command = add("detect", detect, "find lesions in a CT")
    command.add_argument("input", type=Path, metavar="INPUT", help="DICOM folder, NIfTI, MetaImage or NRRD file; in HU")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for what is written")
    command.add_argument("--weights", type=Path, metavar="FILE", help="default: the best run of the phantom profile")
    command.add_argument("--series", metavar="UID", help="the one to read, if a DICOM folder holds several series")
    command.add_argument(
        "--lesanet",
        type=Path,
        metavar="DIR",
        help="trained LesaNet that labels lesions; default: the weights' own, if any",
    )

    command = add("train", train, "train one experiment, without notebooks")
    command.add_argument("experiment", metavar="EXPERIMENT", help="its name; a wrong one lists them all")
    _add_profile(command)

    _add_profile(add("pretext", pretext, "train the common start of the phantoms' networks"))
    _add_profile(add("lesanet", lesanet, "train LesaNet, whose embedding matches the lesions of one patient"))
    _add_profile(add("embedding", embedding, "train the simpler embedding that LesaNet is compared with"))

    command = add("seeds", seeds, "compare the runs of a profile that differ in their seed")
    command.add_argument("--profile", default="phantom", metavar="P", help="smoke, phantom or paper (default: phantom)")

    command = add("prepare", prepare, "bring the datasets to one grid, making phantoms first where they are used")
    _add_profile(command)
    command.add_argument("--data", type=_folder, metavar="DIR", help="folder of the real datasets (see README)")
    command.add_argument("--workers", type=whole(1), metavar="N", help="processes (default: the profile's)")

    command = add("benchmark", benchmark, "how fast volumes are prepared here, beside SimpleITK")
    command.add_argument("--root", type=_folder, metavar="DIR", help="folder of the datasets (default: the profile's)")
    command.add_argument("--profile", default="paper", metavar="P", help="whose grid (default: paper)")
    command.add_argument("--volumes", type=whole(1), default=4, metavar="N", help="of each dataset (default: 4)")
    command.add_argument("--cores", type=whole(1), metavar="N", help="default: all")

    command = add("labels", labels, "what report sentences say of the lesions that they link")
    command.add_argument("sentences", type=Path, metavar="SENTENCES", help="csv with the column sentence")
    command.add_argument("--ontology", type=Path, required=True, metavar="FILE", help="xlsx or csv of terms")
    command.add_argument("--output", type=Path, required=True, metavar="CSV", help="write the labels here")
    command.add_argument("--examples", type=Path, metavar="DIR", help="sentences.csv and relations.csv to learn from")

    command = add("data", data_check, "which real datasets are there, and where to get them")
    command.add_argument("action", choices=("check",), help="count what is there")
    command.add_argument("--root", type=Path, metavar="DIR", help="folder of the datasets (default: data/raw)")
    command.add_argument("--read", action="store_true", help="read every file to its end: hours for all datasets")
    command.add_argument("--workers", type=whole(1), metavar="N", help="processes that read (default: one a core)")
    command.add_argument("--list", type=Path, metavar="CSV", help="write every missing or broken file here")
    return top


def _add_profile(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", default="phantom", metavar="P", help="smoke, phantom or paper (default: phantom)")
    command.add_argument("--seed", type=whole(0), default=0, metavar="N", help="default: 0")


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder" if path.exists() else f"{text} does not exist")
    return path


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def evaluate(options: argparse.Namespace) -> None:
    """`evaluate`: print the FROC and write it as JSON."""
    from lensnb.evaluation import official as evaluation
    from lensnb.files import write_json

    result = evaluation.evaluate_files(
        options.truth, options.predictions, options.split, options.overlap, options.threshold
    )
    print(evaluation.report(result))
    if options.json:
        write_json(result, options.json)


def evaluate_luna(options: argparse.Namespace) -> None:
    """`evaluate-luna`: print the FROC and the CPM and write them as JSON."""
    from lensnb.evaluation import luna
    from lensnb.files import write_json

    result = luna.evaluate_files(options.annotations, options.excluded, options.seriesuids, options.submission)
    print("".join(f"{rate:>8g}" for rate in result["fp"]) + "     CPM")
    print("".join(f"{value:8.4f}" for value in [*result["sensitivity"], result["cpm"]]))
    if result["candidates_on_other_scans"]:
        sys.stderr.write(
            f"lensnb: note: {result['candidates_on_other_scans']} marks lie on scans that --seriesuids does not list; "
            "they are not scored\n"
        )
    if options.json:
        write_json(result, options.json)


def detect(options: argparse.Namespace) -> None:
    """`detect`: write the table, the picture and the markups of one CT."""
    os.environ.setdefault("MPLBACKEND", "Agg")  # no window is opened, so none must be possible
    from lensnb.files import read_json
    from lensnb.own_ct import detect as detection

    table = detection.detect(options.input, options.output, options.weights, options.series, options.lesanet)
    about = read_json(options.output / "about.json")
    for warning in about["warnings"]:
        sys.stderr.write(f"lensnb: warning: {warning}\n")
    if not len(table):
        print(f"nothing was found with a score of {about['score_at_least']:g} or more; see {options.output}")
        return
    sure = int((table["score"] >= 0.5).sum())
    print(f"{len(table)} detections, {sure} scored 0.5 or more, in {options.output / 'detections.csv'}; the best:")
    columns = ["lesion", "x_mm", "y_mm", "z_mm", "long_mm", "short_mm", "score"]
    print(table[columns].head(10).to_string(index=False, float_format=lambda value: f"{value:.2f}"))


def train(options: argparse.Namespace) -> None:
    """`train`: make one experiment's run."""
    from lensnb.training.detector import train_experiment

    print(train_experiment(options.experiment, options.profile, options.seed))


def pretext(options: argparse.Namespace) -> None:
    """`pretext`: train the phantoms' stand-in for ImageNet weights."""
    from lensnb.training.pretext import train_pretext

    print(train_pretext(options.profile, options.seed))


def lesanet(options: argparse.Namespace) -> None:
    """`lesanet`: train the network whose embedding matches the lesions of one patient."""
    from lensnb.lesanet import study

    print(study.train_for_profile(options.profile, options.seed))


def embedding(options: argparse.Namespace) -> None:
    """`embedding`: train the simpler network of the same use."""
    from lensnb.lesanet import recognition

    print(recognition.train_simpler(options.profile, options.seed))


def seeds(options: argparse.Namespace) -> None:
    """`seeds`: write the tables of all seeds beside each other."""
    from lensnb.evaluation import seeds as repetitions
    from lensnb.settings import load_profile

    load_profile(options.profile)  # a wrong name is told as everywhere
    print(repetitions.write(options.profile).read_text())


def prepare(options: argparse.Namespace) -> None:
    """`prepare`: write phantoms if the profile uses them, and bring the raw files to the profile's grid."""
    from lensnb import phantom, runfolder
    from lensnb.datasets import preparation
    from lensnb.settings import load_profile

    profile = load_profile(options.profile)
    workers = options.workers or profile.grid.workers or available_cores()
    raw = options.data or runfolder.raw(options.profile, options.seed)
    if raw == runfolder.phantom(options.profile, options.seed):
        phantom.write(raw, profile.phantom, options.seed, workers)
    present = tuple(name for name in runfolder.DATASET_FOLDERS if (raw / name).is_dir())
    if not present:
        raise FileNotFoundError(f"{raw} holds none of {', '.join(runfolder.DATASET_FOLDERS)}")
    out = runfolder.prepared(options.profile, options.seed)
    spacing, padding = tuple(profile.grid.spacing_mm), profile.grid.box_padding_mm
    report = preparation.prepare(raw, out, spacing, options.seed, workers, padding, present)
    for name, counts in report["datasets"].items():
        print(f"{name}: {counts['prepared']} of {counts['found']} volumes prepared, {counts['lesions']} lesions")
        for reason, number in counts["reasons"].items():
            print(f"  left out: {number} volumes, {reason}")
    print(out)


def benchmark(options: argparse.Namespace) -> None:
    """`benchmark`: print how many volumes a minute are prepared."""
    from lensnb import runfolder
    from lensnb.datasets import benchmark as measuring
    from lensnb.settings import load_profile

    root = options.root or runfolder.raw(options.profile)
    grid = tuple(load_profile(options.profile).grid.spacing_mm)
    print(measuring.report(measuring.benchmark(root, grid, options.volumes, options.cores or 0)))


def labels(options: argparse.Namespace) -> None:
    """`labels`: mine labels from a csv of sentences."""
    from lensnb.lesanet import label_files, report_labels
    from lensnb.phantom import practice
    from lensnb.settings import load_profile

    examples = options.examples or practice.practice(load_profile("phantom").phantom)
    table = report_labels.label_sentences(options.sentences, options.ontology, options.output, examples)
    counts = table["relation"].value_counts()
    numbers = ", ".join(f"{counts.get(name, 0)} {name}" for name in label_files.RELATIONS)
    print(f"{numbers} labels in {options.output}")


def data_check(options: argparse.Namespace) -> int:
    """`data check`: say what is there; status 1 unless everything is."""
    from lensnb import runfolder
    from lensnb.datasets import check as checking
    from lensnb.files import write_table

    root = options.root or runfolder.real_data()
    if options.root and not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; --root names the folder that holds the datasets")
    result = checking.check(root, options.read, options.workers or available_cores())
    print(checking.report(result, root))
    if options.list:
        write_table(result.problems, options.list)
    return 0 if result.complete else 1


if __name__ == "__main__":
    sys.exit(main())
