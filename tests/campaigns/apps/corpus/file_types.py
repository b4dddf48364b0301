import gradio as gr


def both(page, table):
    return [page, table]


gr.Interface(
    both, [gr.File(file_types=[".pdf"]), gr.File(file_types=["image", ".csv"])], gr.File()
).launch()
