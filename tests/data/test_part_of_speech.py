from importlib import resources

import pytest

from mhcvse_jax.data.part_of_speech import parts_of_speech

CAPTIONS = [
    caption.split()
    for caption in """
a young man in an orange shirt is standing on the street .
a man and a woman are walking through the park .
two men are sitting on a red bench .
a dog is running through the white snow .
a white dog and a brown dog play with an orange ball .
the orange building is behind the man .
a man stands in front of a large building .
people walk down a crowded street .
several people watch a man play guitar .
a black dog is wearing a red collar .
a little girl in a pink dress is looking at a dog .
an old woman dressed in black sits on a bench .
a man in a tank top sits near a bar .
a woman sits at the bar with a dog .
the crowd is watching a young boy .
a boy is playing soccer in a field .
a girl is playing in the water .
a wakeboarder is wakeboarding behind a white boat .
a man wearing a blue jacket holds a black sign .
the children stand in the park .
a girl in a green top is on a street .
a boy stands by a pool .
""".strip().splitlines()
]

EXPECTED = {
    "noun": "man woman street park bench dog building people collar girl dress crowd water top bar field "
    "boat ball jacket sign wakeboarder children soccer snow",
    "adjective": "young orange red white brown large crowded black little pink old blue",
    "verb": "standing walking sitting running play stands watch walk wearing looking dressed sits watching "
    "playing wakeboarding holds stand",
    "other": "a the is in on two several front behind near . are",
}


@pytest.mark.parametrize("part", EXPECTED)
def test_ambiguous_words_are_told_by_their_neighbours(part):
    words = EXPECTED[part].split()
    assert parts_of_speech(CAPTIONS, words) == dict.fromkeys(words, part)


@pytest.mark.parametrize(
    ("word", "captions", "part"),
    [
        ("orange", ["a boy eats an orange .", "the orange is on the table ."], "noun"),
        ("orange", ["an orange ball is on the table .", "she has an orange hat ."], "adjective"),
        ("park", ["they park the car .", "a man is trying to park a truck ."], "verb"),
        ("park", ["they sit in the park .", "a park is behind the house ."], "noun"),
        ("building", ["a man is building a wall .", "boys building a castle ."], "verb"),
        ("building", ["a tall building .", "people in a building ."], "noun"),
        ("crowded", ["a crowded room .", "the crowded street is wet ."], "adjective"),
        ("crowded", ["crowded street .", "crowded room .", "the room is crowded ."], "adjective"),
        ("orange", ["a boy is eating orange ."], "noun"),
        ("orange", ["orange is on the table ."], "noun"),
        ("park", ["and park the car ."], "verb"),
        ("park", ["they park near the house ."], "verb"),
        ("reading", ["sitting and reading on the bench ."], "verb"),
    ],
)
def test_the_same_word_follows_its_use(word, captions, part):
    assert parts_of_speech([caption.split() for caption in captions], [word]) == {word: part}


def test_the_larger_number_of_votes_decides():
    noun, verb = (text.split() for text in ("a stand is in the park .", "two men stand in the park ."))
    assert parts_of_speech([noun, noun, verb], ["stand"]) == {"stand": "noun"}
    assert parts_of_speech([noun, verb, verb], ["stand"]) == {"stand": "verb"}


def test_one_caption_of_drawn_shapes():
    text = "a large red circle is floating above a small striped square ."
    caption = text.split()
    found = parts_of_speech([caption], caption)
    assert found == {
        **dict.fromkeys(["circle", "square"], "noun"),
        **dict.fromkeys(["large", "red", "small", "striped"], "adjective"),
        "floating": "verb",
        **dict.fromkeys(["a", "is", "above", "."], "other"),
    }


def test_captions_do_not_run_into_each_other():
    # Read on, "park the dog" would be a verb and its object.
    captions = [["an", "orange"], ["the", "dog"]] * 3
    assert parts_of_speech(captions, ["orange"]) == {"orange": "noun"}
    assert parts_of_speech([["park"], ["the", "dog"]] * 3, ["park"]) == {"park": "noun"}


def test_words_that_never_occur_are_answered_from_the_lexicon_in_the_order_asked():
    found = parts_of_speech([], ["dog", "huge", "eat", "slowly", "12", "--"])
    assert list(found.items()) == [
        ("dog", "noun"),
        ("huge", "adjective"),
        ("eat", "verb"),
        ("slowly", "other"),
        ("12", "other"),
        ("--", "other"),
    ]
    assert parts_of_speech([[], ["dog"]], []) == {}


def stop_words():
    lines = resources.files("mhcvse_jax.data").joinpath("stop_words.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_stop_words_are_distinct_clean_and_never_concepts():
    words = stop_words()
    assert len(words) == len(set(words)) > 100
    assert all(word == word.strip().lower() for word in words)
    captions = [["a", word, "dog"] for word in words]
    words.remove("mine")  # also a noun
    assert set(parts_of_speech(captions, words).values()) == {"other"}


def test_stop_words_leave_what_tells_pictures_apart():
    kept = """
        no not n't without two one three both red black white up down over under above below behind front
        between near next inside outside left right top bottom around through across along against off out
        into onto nothing nobody several many few
        """
    assert set(kept.split()).isdisjoint(stop_words())
