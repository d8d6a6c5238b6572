"""Pointers of Git LFS are told from the files that they stand for."""

import pytest

from gtpo_jax import files

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 12345\n"
)


def test_pointer_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text(POINTER)
    assert files.git_lfs_pointer(path)
    with pytest.raises(ValueError, match=r"safetensors is a pointer of Git LFS.*git lfs pull"):
        files.refuse_git_lfs_pointer(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version",
        b'{"question": "What is version https://git-lfs.github.com/spec/v1?"}\n',
        b" " + POINTER.encode(),
        b"\xff\xfe\x00",
    ],
)
def test_other_files_pass(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not files.git_lfs_pointer(path)
    files.refuse_git_lfs_pointer(path)


def test_what_cannot_be_read_is_left_to_its_reader(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        assert not files.git_lfs_pointer(path)
        files.refuse_git_lfs_pointer(path)
