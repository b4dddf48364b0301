import gradio as gr


def same(path):
    return path


gr.Interface(same, gr.File(), gr.File()).launch(max_file_size="1kb")
