import zipfile
from pathlib import Path

import gradio as gr


def packed(paths):
    with zipfile.ZipFile("all.zip", "w") as archive:
        for path in paths:
            archive.writestr(zipfile.ZipInfo(Path(path).name), Path(path).read_bytes())
    return "all.zip"


gr.Interface(packed, gr.File(file_count="multiple"), gr.File()).launch()
