"""What lies in a tuned LLM's folder: whose run it is, and which model it belongs to."""

import json

import pytest

from llama_index.tuning import HuggingFaceFinetuneEngine, TunedHuggingFaceLLM
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.llms import HuggingFaceOptions
from tests.llms.conftest import fees

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6


def engine(model, path, seed=0, **arguments):
    options = HuggingFaceOptions(device="cpu", max_steps=1, seed=seed)
    given = {"accept": "always", "options": options, **arguments}
    return HuggingFaceFinetuneEngine(fees(20), model, model_output_path=path, **given)


@pytest.mark.parametrize("accept", ["always", "gain"])
def test_an_engine_does_not_hand_out_what_another_one_wrote(tiny, tmp_path, accept):
    first = engine(tiny, tmp_path / "out")
    first.finetune()
    assert first.get_finetuned_model() is not None
    engine(tiny, tmp_path / "out", 1, accept=accept, evaluate=lambda llm: [0.5] * 20).finetune()
    with pytest.raises(ArtifactError, match="another run wrote there since"):
        first.get_finetuned_model()
    with pytest.raises(ArtifactError, match="another run wrote there since"):
        first.save(tmp_path / "copy")


@pytest.mark.parametrize("content", [None, "{"])
def test_without_its_report_a_run_is_done_again(tiny, tmp_path, content, caplog):
    engine(tiny, tmp_path / "out").finetune()
    report = tmp_path / "out" / "report.json"
    report.unlink() if content is None else report.write_text(content)
    assert engine(tiny, tmp_path / "out").finetune().accepted
    assert "report.json" in caplog.text
    assert "the run is done again" in caplog.text


def test_a_hub_models_copy_in_a_folder_serves_its_adapter(tiny, tmp_path, caplog):
    engine(tiny, tmp_path / "out").finetune()
    file = tmp_path / "out" / "tuning.json"
    config = json.loads(file.read_text())
    config["base_model"] |= {"name": "acme/tiny", "identity": "0" * 16}
    file.write_text(json.dumps(config))
    llm = TunedHuggingFaceLLM.load(tmp_path / "out", base_model=tiny, device="cpu")
    assert llm.complete("Fee?", max_tokens=2).text is not None
    assert "acme/tiny, cannot be told" in caplog.text
