"""From an app's traffic to a tuned app

The app runs, the recorder listens, users say what helped them. From that log alone `tune_app`
tries what could make the app better, from the cheapest part on, and serves only what it could
show.
"""

import tempfile

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM

from llama_index.tuning import FinetuningRecorder, load_app, tune_app
from llama_index.tuning.demo import minilm, questions_about, reference_nodes

# The app: a query engine over Python's language reference. Every fourth passage keeps the example
# short.

nodes = reference_nodes()[::4]
index = VectorStoreIndex(nodes, embed_model=minilm())
query_engine = index.as_query_engine(llm=MockLLM(max_tokens=8), similarity_top_k=5)

# Its users. The questions are real ones of beginners, and a user who sees the right passage among
# the five sources opens it. What the app did not show, nobody can open: such questions teach
# nothing and do not count in the report, which so compares with the app on questions where it was
# at its best. The recorder writes one line for each event, and masks keys and addresses.

users = questions_about(nodes, "train")
folder = tempfile.mkdtemp()
with FinetuningRecorder(f"{folder}/traffic.jsonl") as recorder:
    for id_, question in users.queries.items():
        answer = query_engine.query(question)
        shown = [source.node.node_id for source in answer.source_nodes]
        opened = [node_id for node_id in users.relevant_docs[id_] if node_id in shown]
        recorder.feedback(recorder.last_trace_id(), 1 if opened else -1, relevant=opened)
print(recorder.traffic().stats())

# The tuning. Each rung of the ladder has to show its gain on top of those below it.

app = tune_app(query_engine, traffic=f"{folder}/traffic.jsonl", run_folder=None)
print(app.report)

# What is served now, in place of the old engine; and saved for the next start of the app.

tuned_engine = app.as_query_engine()
for source in tuned_engine.query("how do I sort a dictionary by value").source_nodes[:3]:
    print(" ".join(source.node.get_content().split())[:80], "…")
app.save(f"{folder}/tuned")
print(load_app(f"{folder}/tuned", index))
