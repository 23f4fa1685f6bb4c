from .chatml import CHATML_WITH_TOOLS as CHATML_WITH_TOOLS
from .models import minilm as minilm, minilm_folder as minilm_folder
from .reference import questions_about as questions_about, reference_nodes as reference_nodes
from .smollm2 import smollm2_folder as smollm2_folder
from .tiny_llama import tiny_llama as tiny_llama
