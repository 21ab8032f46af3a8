import json
import math
import pathlib

import jax
import numpy as np
import pytest

from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.config import listing
from mhcvse_jax.config.declare import wrong
from mhcvse_jax.errors import InputError
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.models import cross_attention
from mhcvse_jax.training.step import init_variables

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
DEMO = str(CONFIGS / "demo.py")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_configuration_builds_its_model(path):
    config = config_lib.read(str(path))
    num, width = config.concepts.num, config.concepts.vector_dim

    def init(key, vectors):
        graph = concept_graph(vectors, np.arange(num), np.arange(num), np.ones(num, np.float32))
        return init_variables(model, graph, (36, 2048), key)

    model = models.build(config.model, vocabulary_size=101, dtype=config.compute_dtype)
    variables = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((num, width), "float32"))
    dim = config.model.embedding_dim
    assert variables["params"]["region_projection"]["kernel"].shape == (2048, dim)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(variables)} == {"float32"}


def test_f30k_is_the_papers():
    config = config_lib.read(str(CONFIGS / "f30k.py"))
    found = (config.model.num_heads, config.model.fusion, config.loss.weighting, config.batch_size, config.num_epochs)
    assert found == (8, "weight_sum", "eq15", 128, 30)
    assert (config.patience_epochs, config.model.embedding_dim, config.text.remove_stop_words) == (5, 1024, True)
    assert (config.concepts.num, config.concepts.shares) == (300, (7, 2, 1))


def test_overrides_keep_the_type_of_a_key():
    arguments = ["--config.batch_size=64", "--config.data.dir", "some where", "--config.loss.margin=1"]
    config = config_lib.read(DEMO, [*arguments, "--config.eval.folds=(5,1)", "--config.text.remove_stop_words=True"])
    assert (config.batch_size, config.data.dir, config.loss.margin) == (64, "some where", 1.0)
    assert isinstance(config.loss.margin, float)
    assert config.eval.folds == (5, 1)
    assert config.text.remove_stop_words is True


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.modle.fusion=concat", "config.modle.fusion does not exist; the nearest key is config.model.fusion"),
        ("--config.batchsize=3", "config.batchsize does not exist; the nearest key is config.batch_size"),
        ("--batch_size=3", "unknown option '--batch_size=3'"),
        ("--config.batch_size=many", "config.batch_size"),
        ("--config.batch_size=1.5", "config.batch_size"),
        ("--config.model.fusion=sum", "config.model.fusion is 'sum'; expected one of 'concat'"),
        ("--config.model.num_heads=7", "config.model.num_heads is 7, which does not divide model.embedding_dim 128"),
        ("--config.model.dropout_rate=1.5", "config.model.dropout_rate is 1.5; expected a share"),
        ("--config.num_epochs=0", "config.num_epochs is 0; expected more than 0"),
        ("--config.loss.margin=-1", "config.loss.margin is -1.0; expected 0 or more"),
        ("--config.data.caption_lengths=(24,16)", "config.data.caption_lengths"),
        ("--config.eval.folds=(0,)", "config.eval.folds"),
        ("--config.eval.folds=(1.5,)", "config.eval.folds is (1.5,); expected whole numbers"),
        ("--config.concepts.shares=(7,2)", "config.concepts.shares is (7, 2); expected three whole numbers"),
        ("--config.concepts.shares=(0,0,0)", "config.concepts.shares"),
        ("--config.concepts.scale=1", "config.concepts.scale is 1.0; expected more than 1"),
        ("--config.loss.margin=nan", "config.loss.margin is nan; expected 0 or more"),
        ("--config.model.name=vse", "config.model.name is 'vse'; expected one of 'mhcvse', 'cvse'"),
        ("--config.model.name=vsepp", "config.model.num_heads is 8; expected 0, as vsepp has no heads"),
        ("--config.model.cross_levels=(['global'],)", "config.model.cross_levels is (['global'],); expected one or"),
        ("--config.model.cross_levels=('global','global')", "once each"),
        ("--config.concepts.words_path=x", "need each other"),
        ("--config.optimizer.adam_b1=7", "config.optimizer.adam_b1 is 7.0; expected 0 or more, and less than 1"),
        ("--config.optimizer.learning_rate=inf", "learning_rate is inf; expected more than 0, and finite"),
        ("--config.concepts.threshold=nan", "config.concepts.threshold is nan; expected a number, and finite"),
        ("--config.concepts.neighbour_weight=-1", "config.concepts.neighbour_weight is -1.0; expected 0 or more"),
        ("--config.data.scenes.num_train=-3", "config.data.scenes.num_train is -3; expected more than 0"),
        ("--config.optimizer.warmup_epochs=99", "config.optimizer.warmup_epochs is 99.0; expected less than"),
        ("stray", "unexpected argument 'stray'"),
    ],
)
def test_bad_values_are_named(override, message):
    with pytest.raises(InputError) as error:
        config_lib.read(DEMO, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_key_says_what_it_may_be():
    assert set(config_lib.KEYS) == set(config_lib.keys(config_lib.base()))
    for name, key in config_lib.KEYS.items():
        assert key.meaning, name
        assert wrong(key.default, key.allowed) is None, name
        refused = math.nan if isinstance(key.default, float) else -1
        assert wrong(refused, key.allowed), name  # or no value would be


def test_what_a_configuration_names_is_there():
    assert config_lib.CHOICES["model.name"] == tuple(models.MODELS)
    assert config_lib.CHOICES["model.cross_levels"] == cross_attention.LEVELS


def test_infinity_is_allowed_where_it_means_always():
    assert config_lib.read(DEMO, ["--config.loss.all_negatives_epochs=inf"]).loss.all_negatives_epochs == math.inf
    with pytest.raises(InputError, match="all_negatives_epochs is -inf; expected 0 or more, and finite"):
        config_lib.read(DEMO, ["--config.loss.all_negatives_epochs=-inf"])


def test_the_page_of_all_keys_is_up_to_date():
    page = CONFIGS.parent / "docs" / "configuration.md"
    assert page.read_text(encoding="utf-8") == listing.as_markdown(), "python -m mhcvse_jax.config.listing writes it"


def test_a_file_may_take_an_argument():
    config = config_lib.read("scan_f30k:i2t_lse")
    assert (config.model.scan_direction, config.model.scan_pooling) == ("i2t", "lse")
    assert config_lib.read(str(CONFIGS / "scan_f30k.py:t2i_lse")).model.scan_pooling == "lse"
    assert [config_lib.name_of(path) for path in ("f30k", "configs/a.py", "configs/a.py:b")] == ["f30k", "a", "a_b"]
    with pytest.raises(InputError, match="'t2i' is no variant; expected one of t2i_avg"):
        config_lib.read("scan_f30k:t2i")


def test_a_missing_or_failing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.py: no such file"):
        config_lib.read(str(tmp_path / "absent.py"))
    failing = (
        "def get_config(:",
        "import absent_module",
        "get_config = lambda: 1 / 0",
        "get_config = lambda: 3",
    )
    for i, content in enumerate(failing):
        path = tmp_path / f"broken{i}.py"
        path.write_text(content)
        with pytest.raises(InputError, match=rf"--config .*broken{i}\.py: "):
            config_lib.read(str(path))


def test_a_key_that_a_file_invents_is_named(tmp_path):
    path = tmp_path / "inventive.py"
    path.write_text(
        "from mhcvse_jax.config import base\n\n"
        "def get_config():\n    config = base()\n    config.model.depth = 3\n    return config\n"
    )
    with pytest.raises(InputError, match=r"config\.model\.depth, which does not exist"):
        config_lib.read(str(path))


def test_a_saved_configuration_reads_back_whole(tmp_path):
    config = config_lib.read(DEMO, ["--config.seed=3", "--config.eval.folds=(5,1)"])
    config_lib.save(config, tmp_path / "config.json")
    assert config_lib.load(tmp_path / "config.json").to_dict() == config.to_dict()


def test_a_key_newer_than_a_saved_configuration_has_its_default(tmp_path):
    config = config_lib.read(DEMO, ["--config.seed=3"])
    older = config.to_dict()
    del older["start_from"], older["model"]["cross_layers"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert config_lib.load(tmp_path / "config.json").to_dict() == config.to_dict()
    older["model"]["heads"] = 8
    (tmp_path / "config.json").write_text(json.dumps(older))
    with pytest.raises(InputError, match=r"config\.model\.heads does not exist in this version"):
        config_lib.load(tmp_path / "config.json")


def test_a_run_from_before_soft_negatives_has_the_hardest(tmp_path):
    older = config_lib.base().to_dict()
    del older["loss"]["negatives"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert config_lib.load(tmp_path / "config.json").loss.negatives == "hardest"


@pytest.mark.parametrize("content", ["{", "[]", '{"seed": 0}', '{"unknown": 1}'])
def test_a_damaged_saved_configuration_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        config_lib.load(path)
