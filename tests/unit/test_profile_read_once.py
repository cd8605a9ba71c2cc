"""A profile file is read once for all participants that share it."""

from importlib.resources import files

from bridge.profile import load, load_profile


def test_participants_that_share_a_profile_have_it_read_once(tmp_path):
    """Reading takes long, and a host may have hundreds of participants; a file that was changed is read anew."""
    text = (files("bridge") / "profiles" / "odd.yaml").read_text()
    for version, misses in (("one", 1), ("one", 0), ("two", 1)):
        before = load._content.cache_info().misses
        file = tmp_path / "mine.yaml"
        file.write_text(text.replace("name: odd\n", f"name: odd-{version}\n"))
        assert load_profile(file).spec.name == f"odd-{version}"
        assert load._content.cache_info().misses - before == misses
