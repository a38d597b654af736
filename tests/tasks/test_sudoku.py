"""4x4 Sudoku against a plain search, cell by cell, and against every guess there is."""

import itertools
import random
from collections.abc import Iterator

import pytest

from ldlm_hf.tasks import SPLITS, Problem, Sudoku, get_task, read_sudoku_csv
from ldlm_hf.tasks.sudoku import chance_levels, grids, solutions
from ldlm_hf.tokenization import build_tokenizer


PUZZLE, GRID = "0402103001400301", "3412123421434321"


def fits(cells: list[str], cell: int, digit: str) -> bool:
    """Return whether no cell in the same row, column or box holds the digit."""
    row, column = divmod(cell, 4)
    return all(
        cells[other] != digit
        for other in range(16)
        if other != cell
        and (other // 4 == row or other % 4 == column or (other // 8, other % 4 // 2) == (row // 2, column // 2))
    )


def search(puzzle: str) -> Iterator[str]:
    """Yield every solution, filling cell after cell."""
    if "0" not in puzzle:
        yield puzzle
        return
    cell = puzzle.index("0")
    for digit in "1234":
        if fits(list(puzzle), cell, digit):
            yield from search(puzzle[:cell] + digit + puzzle[cell + 1 :])


def obeys(grid: str) -> bool:
    return all(fits(list(grid), cell, grid[cell]) for cell in range(16))


def ambiguous() -> tuple[str, list[str]]:
    """Return a puzzle with two solutions."""
    for places in itertools.combinations(range(16), 4):
        puzzle = "".join("0" if cell in places else digit for cell, digit in enumerate(grids()[0]))
        found = list(search(puzzle))
        if len(found) == 2:
            return puzzle, found
    raise AssertionError


def row_fillings(puzzle: str) -> Iterator[str]:
    """Yield what becomes of a puzzle when the digits that its rows lack are filled in, in every order."""
    rows = [puzzle[start : start + 4] for start in range(0, 16, 4)]
    orders = [itertools.permutations(sorted(set("1234") - set(row))) for row in rows]
    for choice in itertools.product(*orders):
        digits = iter("".join(map("".join, choice)))
        yield "".join(next(digits) if digit == "0" else digit for digit in puzzle)


def test_the_grids_are_those_that_a_search_finds():
    assert list(search("0" * 16)) == list(grids())
    assert len(grids()) == 288


@pytest.mark.parametrize("num_blanks", [1, 8, 10, 12])
def test_every_puzzle_has_one_solution_the_target(num_blanks):
    task = Sudoku(num_blanks)
    for split in SPLITS:
        for problem in (task.problem(split, i) for i in range(30)):
            assert problem.prompt.count("0") == num_blanks
            assert list(search(problem.prompt)) == [problem.target] == [problem.answer]
            assert task.is_correct(problem.target, problem.prompt, problem.answer)
            assert task.check_chain(problem.target, problem.target).is_consistent
            assert task.kind(problem.prompt) == "one solution"
            task.check_prompt(problem.prompt)


def test_a_pass_shows_every_puzzle_of_a_split_once_in_its_own_order():
    task = Sudoku(12, heldout_size=10_000)
    size = task.num_problems("validation")
    first, second = ([task.problem("validation", i + start).prompt for i in range(size)] for start in (0, size))
    assert len(set(first)) == size
    assert sorted(first) == sorted(second)
    assert first != second
    grid = next(grid for grid in grids() if task.split_of(grid) == "validation")
    givens = itertools.combinations(range(16), 4)
    puzzles = ("".join(digit if cell in kept else "0" for cell, digit in enumerate(grid)) for kept in givens)
    unique = {puzzle for puzzle in puzzles if solutions(puzzle) == [grid]}
    assert {prompt for prompt in first if solutions(prompt) == [grid]} == unique


def test_the_splits_share_no_solution_whatever_the_blanks():
    found = {split: set() for split in SPLITS}
    for num_blanks in (3, 8):
        for split in SPLITS:
            found[split].update(Sudoku(num_blanks).to_dataset(split, 400)["answer"])
    assert not found["train"] & (found["validation"] | found["test"])
    assert not found["validation"] & found["test"]
    assert found["validation"] | found["test"] | found["train"] <= set(grids())


def test_what_is_held_out_never_changes():
    task = Sudoku()
    held_out = {split: sum(task.split_of(grid) == split for grid in grids()) for split in SPLITS}
    assert held_out == {"train": 218, "validation": 18, "test": 52}
    assert [task.problem(split, 0).prompt for split in SPLITS] == [
        "2413000440001300",
        "0000120340212030",
        "0012000301304021",
    ]


def test_a_few_hundred_test_problems_are_different_and_from_most_grids():
    problems = Sudoku().to_dataset("test", 400)
    assert len(set(problems["prompt"])) == 400
    assert len(set(problems["answer"])) == 52


def test_a_problem_is_a_function_of_split_seed_and_index():
    indices = random.Random(0).sample(range(2_000_000), 30)
    one, other = Sudoku(), Sudoku()
    expected = {i: one.problem("train", i, seed=3) for i in indices}
    assert {i: other.problem("train", i, seed=3) for i in reversed(indices)} == expected
    assert {i: other.problem("train", i, seed=4) for i in indices} != expected


def test_data_sets_are_as_large_as_told_unless_there_are_fewer_puzzles():
    assert Sudoku(train_size=70, heldout_size=5).to_dataset("train").num_rows == 70
    assert Sudoku(1, heldout_size=5000).num_problems("validation") == 18 * 16


def test_any_solution_is_right_and_the_kind_tells_that_there_are_several():
    task = get_task("sudoku")
    puzzle, (one, other) = ambiguous()
    assert task.is_correct(one, puzzle, one)
    assert task.is_correct(other, puzzle, one)
    assert task.kind(puzzle) == "several solutions"
    task.check_prompt(puzzle)


@pytest.mark.parametrize("cell", range(16))
def test_a_wrong_cell_is_wrong_be_it_given_or_not(cell):
    task, problem = Sudoku(), Sudoku().problem("test", 0)
    digit = "1234"["1234".index(problem.answer[cell]) - 1]
    text = problem.answer[:cell] + digit + problem.answer[cell + 1 :]
    assert not task.is_correct(text, problem.prompt, problem.answer)
    report = task.check_chain(text, problem.target)
    assert (report.num_steps, report.num_correct_steps, report.is_consistent) == (4, 3, False)


def test_a_valid_grid_that_changes_what_is_given_is_wrong():
    task, problem = Sudoku(), Sudoku().problem("test", 0)
    other = problem.answer.translate(str.maketrans("1234", "2341"))
    assert obeys(other)
    assert not task.is_correct(other, problem.prompt, problem.answer)
    report = task.check_chain(other, problem.target)
    assert (report.num_correct_steps, report.is_consistent) == (0, True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (GRID, GRID),
        (" 3412\n1234 2143\t4321 ", GRID),
        (GRID[:15], None),
        (GRID + "1", None),
        (GRID.replace("1", "0"), None),
        (GRID.replace("1", "5"), None),
        (GRID.replace("1", "١"), None),  # a digit, but not one of ours
        ("x" + GRID[1:], None),
        ("", None),
        ("3" * 16, "3" * 16),  # digits that break the rules are an answer, a wrong one
    ],
)
def test_an_answer_is_sixteen_digits(text, answer):
    assert Sudoku().parse_answer(text) == answer
    assert Sudoku().is_correct(text, PUZZLE, GRID) is (answer == GRID)


@pytest.mark.parametrize(
    ("text", "rows"), [("", 0), (GRID[:9], 2), (GRID + GRID, 4), ("1243" + GRID[4:], 3), (" ".join(GRID), 4)]
)
def test_chains_are_compared_row_by_row(text, rows):
    assert Sudoku().check_chain(text, GRID).num_correct_steps == rows


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (GRID, 1),
        (PUZZLE, 0),  # the puzzle copied
        ("", 0),
        (GRID[:4], 2 / 8),  # the rest counts as wrong
        ("answer: " + " ".join(GRID) + " 111", 1),  # only digits count, the first sixteen
        (GRID[:8] + "9" + GRID[8:], 4 / 8),
    ],
)
def test_cell_accuracy_is_that_of_d1(text, share):
    digits = ("".join(character for character in text if character.isdigit()) + "0" * 16)[:16]
    blanks = [cell for cell in range(16) if PUZZLE[cell] == "0"]
    assert sum(digits[cell] == GRID[cell] for cell in blanks) / len(blanks) == share
    assert Sudoku().cell_accuracy(text, PUZZLE, GRID) == share


def test_chance_levels_equal_those_of_all_guesses():
    puzzle, (answer, _) = ambiguous()
    problems = [Problem(puzzle, answer, answer), Sudoku(5).problem("train", 3)]
    task = Sudoku()
    cells, solved = {"digits": [], "rows": []}, {"digits": [], "rows": []}
    for problem in problems:
        choices = itertools.product(*("1234" if digit == "0" else digit for digit in problem.prompt))
        guesses = {"digits": list(map("".join, choices)), "rows": list(row_fillings(problem.prompt))}
        for name, texts in guesses.items():
            given = [(text, problem.prompt, problem.answer) for text in texts]
            cells[name].append(sum(task.cell_accuracy(*one) for one in given) / len(given))
            solved[name].append(sum(task.is_correct(*one) for one in given) / len(given))
    levels = chance_levels(problems)
    assert levels.random_digits == pytest.approx(sum(cells["digits"]) / 2)
    assert levels.row_completion == pytest.approx(sum(cells["rows"]) / 2)
    assert levels.random_digits_solved == pytest.approx(sum(solved["digits"]) / 2)
    assert levels.row_completion_solved == pytest.approx(sum(solved["rows"]) / 2)
    with pytest.raises(ValueError, match="at least one problem"):
        chance_levels([])


def test_the_files_of_d1_are_read(tmp_path):
    path = tmp_path / "sudoku.csv"
    path.write_text(f"Puzzle,Solution\n{PUZZLE},{GRID}\n0{GRID[1:]},{GRID}\n")
    problems = read_sudoku_csv(path)
    assert problems == [Problem(PUZZLE, GRID, GRID), Problem("0" + GRID[1:], GRID, GRID)]


@pytest.mark.parametrize(
    "line",
    [
        f"{PUZZLE[1:]},{GRID}",  # a leading zero was lost
        f"{GRID},{GRID}",
        f"{PUZZLE},{GRID[:15]}5",
        f"{PUZZLE},{GRID.translate(str.maketrans('1234', '2341'))}",
        PUZZLE,
        f"x{PUZZLE[1:]},{GRID}",
    ],
)
def test_a_row_that_is_no_puzzle_is_named(tmp_path, line):
    path = tmp_path / "sudoku.csv"
    path.write_text(f"Puzzle,Solution\n{PUZZLE},{GRID}\n{line}\n")
    with pytest.raises(ValueError, match=r"sudoku\.csv' has to hold .* but row 2 is"):
        read_sudoku_csv(path)


def test_a_tokenizer_by_digits_knows_every_text():
    task = Sudoku()
    tokenizer = build_tokenizer([], task.words(), granularity="digit")
    for problem in (task.problem("test", i) for i in range(20)):
        for text in (problem.prompt, problem.target):
            ids = tokenizer(text)["input_ids"]
            assert len(ids) == 18
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(
    "prompt", ["", GRID, PUZZLE[1:], PUZZLE + "0", PUZZLE.replace("4", "5"), "11" + "0" * 14, " ".join(PUZZLE)]
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="`prompt` has to be a solvable 4x4 Sudoku"):
        Sudoku().check_prompt(prompt)
    with pytest.raises(ValueError, match="`prompt` has to be a solvable 4x4 Sudoku"):
        Sudoku().cell_accuracy(GRID, prompt, GRID)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_blanks": 0}, "`num_blanks` has to be 1 to 12, .* but is 0"),
        ({"num_blanks": 13}, "`num_blanks` has to be 1 to 12, .* but is 13"),
        ({"train_size": 0}, "`train_size` and `heldout_size` have to be at least 1, but are 0, 1000"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        Sudoku(**arguments)
