import gradio as gr


def doubled(table):
    return table + table


gr.Interface(doubled, gr.Dataframe([["a", "b"]], headers=["x", "y"]), gr.Dataframe()).launch()
