import gradio as gr


def backwards(paths):
    return paths[::-1]


gr.Interface(backwards, gr.File(file_count="multiple"), gr.Files()).launch()
