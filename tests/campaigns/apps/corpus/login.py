#: login ada lovelace
import gradio as gr


def same(path, request: gr.Request):
    return path, request.username


gr.Interface(same, gr.File(), [gr.File(), gr.Textbox()]).launch(auth=("ada", "lovelace"))
