"""The texts of Tables 5 and 6 come out of the tagged corpus as prose."""

import pytest

from examples import make_texts


def test_tagged_documents_become_prose_and_other_files_are_left_out(tmp_path):
    (tmp_path / "README").write_text("the/at corpus/nn")
    (tmp_path / "ca02").write_text("\n\n\tWhy/wrb ?/.\n\n\tIt/pps is/bez 1/2/cd ,/, he/pps said/vbd ./.\n")
    (tmp_path / "ca01").write_text("\n\tThe/at ``/`` jury's/nn$ ''/'' term-end/nn ./.\n")
    make_texts.main([str(tmp_path), str(tmp_path / "new" / "brown.txt")])
    text = (tmp_path / "new" / "brown.txt").read_text()
    assert text == 'The " jury\'s " term-end.\n\nWhy? It is 1/2, he said.\n'


def test_a_folder_without_the_corpus_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="ca01"):
        make_texts.main([str(tmp_path), str(tmp_path / "brown.txt")])
    assert not (tmp_path / "brown.txt").exists()
