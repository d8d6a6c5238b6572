"""Text files are read by their suffix; errors name the file and the way out."""

import pytest

from gtpo_jax.language import files

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


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b"one\ntwo \xe9",
            "is not UTF-8: line 2 has the byte 0xe9; .*iconv -f ISO-8859-1 -t UTF-8",
        ),
        ("text".encode("utf-16"), "is not UTF-8: it is UTF-16; .*iconv -f UTF-16 -t UTF-8"),
        ("text".encode("utf-32"), "is not UTF-8: it is UTF-32; .*iconv -f UTF-32 -t UTF-8"),
        (POINTER.encode(), "is a pointer of Git LFS"),
    ],
)
def test_text_in_another_encoding_is_named_with_the_way_out(data, reason, tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"file\.jsonl {reason}") as raised:
        files.read_text(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", files.COMPRESSED)
def test_compressed_file_that_is_none_or_cut_short_is_an_error(suffix, tmp_path):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(b"plain text")
    with pytest.raises(ValueError, match=rf"cannot read .*file\{suffix}: "):
        files.read_text(path)
    with files.COMPRESSED[suffix](path, "wb") as file:
        file.write(bytes(range(256)) * 99)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"cannot read .*file\{suffix}: "):
        files.read_text(path)


def test_text_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*absent: No such file or directory"):
        files.read_text(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"cannot read .*: Is a directory"):
        files.read_text(tmp_path)
