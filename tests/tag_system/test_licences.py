import json

import pytest

from tagmill.tag_system.hub import hub_licence
from tagmill.tag_system.licences import LicenceSource, forbids, licence_link, licence_name
from tagmill.tag_system.sample_counts import MOST, OTHERS, SampleCounts


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("http://creativecommons.org/licenses/by-nc-nd/2.0/", "CC-BY-NC-ND-2.0"),
        ("https://creativecommons.org/licenses/by/3.0/us/deed.en", "CC-BY-3.0-US"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("creativecommons.org/publicdomain/mark/1.0", "CC-PDM-1.0"),
        ("Attribution-NonCommercial-ShareAlike License", "CC-BY-NC-SA"),
        ("Attribution-NonCommercial-NoDerivs 2.0 Generic (CC BY-NC-ND 2.0)", "CC-BY-NC-ND-2.0"),
        ("Creative Commons Attribution-Share Alike 4.0 International", "CC-BY-SA-4.0"),
        ("cc by-nc 2.0", "CC-BY-NC-2.0"),
        ("CC0", "CC0-1.0"),
        ("apache-2.0", "Apache-2.0"),
        ("Apache License 2.0", "Apache-2.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0.txt", "Apache-2.0"),
        ("https://opensource.org/license/mit/", "MIT"),
        ("https://opendatacommons.org/licenses/odbl/1-0/", "ODbL-1.0"),
        ("  ©  Jane Doe,\n all rights reserved ", "© Jane Doe, all rights reserved"),
        ("x" * 1000, "x" * 200),
        ("unknown", None),
        (" ", None),
    ],
)
def test_a_licence_has_the_name_that_spdx_gives_it(said, name):
    assert licence_name(said) == name
    assert name is None or licence_name(name) == name


def test_what_licences_forbid_and_where_they_are_read():
    assert [forbids("CC-BY-NC-ND-2.0", term) for term in ("NC", "ND")] == [True, True]
    assert [forbids("CC-BY-NC", term) for term in ("NC", "ND")] == [True, False]
    assert not any(forbids(name, term) for name in ("CC-BY-4.0", "MIT", "NC") for term in ("NC", "ND"))
    assert licence_link("CC-BY-NC-2.0") == "https://creativecommons.org/licenses/by-nc/2.0/"
    assert licence_link("MIT") == "https://spdx.org/licenses/MIT.html"
    assert licence_link("CC-BY-NC") is licence_link("see the page") is None


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({"license": 4}, "CC-BY-2.0"),
        ({"license": "4"}, "CC-BY-2.0"),
        ({"license": {"id": 4, "url": "http://creativecommons.org/licenses/by-sa/2.0/"}}, "CC-BY-SA-2.0"),
        ({"license": None}, "MIT"),
        ({"license": ["CC0"]}, "MIT"),
        ({"rights": "CC0"}, "MIT"),
        ([], "MIT"),
    ],
)
def test_an_example_says_its_licence_or_its_input_does(meta, name):
    assert LicenceSource("MIT", names={"4": "CC BY 2.0"}).of(json.dumps(meta)) == name


def test_hugging_face_has_its_own_names():
    assert hub_licence({"CC-BY-NC-2.0": 3}) == {"license": "cc-by-nc-2.0"}
    assert hub_licence({"ODbL-1.0": 3}) == {"license": "odbl"}
    assert hub_licence({"CC-BY-ND-2.0": 3}) == {
        "license": "other",
        "license_name": "cc-by-nd-2.0",
        "license_link": "https://creativecommons.org/licenses/by-nd/2.0/",
    }
    assert hub_licence({"MIT": 1, "unknown": 1}) == {"license": "other", "license_name": "several"}
    assert hub_licence({"unknown": 9}) == hub_licence({}) == {"license": "unknown"}


def test_as_many_licences_are_told_apart_as_a_manifest_can_hold():
    counts = SampleCounts()
    counts.licenses.update({f"© {number}": 1 for number in range(MOST + 5)} | {"MIT": 7, "unknown": 1})
    told = counts.told()["licenses"]
    assert (len(told), told["MIT"], told["unknown"], told[OTHERS]) == (MOST + 1, 7, 1, 7)
    assert sum(told.values()) == MOST + 13
