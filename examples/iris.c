/* Trains a 4-20-3 net on Fisher's irises with the C code of the model, and prints its accuracy:
 *
 *   catgrad-hw emit iris-hidden --target c -o build && make -C build
 *   cc -Ibuild examples/iris.c build/libiris_hidden.a -lm -o build/iris
 *   build/iris catgrad_hw/workloads/iris.csv 1000
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iris_hidden.h"

static float p0[IRIS_HIDDEN_P0], p1[IRIS_HIDDEN_P1], p2[IRIS_HIDDEN_P2], p3[IRIS_HIDDEN_P3];
static float x[IRIS_HIDDEN_X], y[IRIS_HIDDEN_Y], yhat[IRIS_HIDDEN_YHAT];
static struct iris_hidden_scratch scratch;

/* The file's rows: four measures and a name, after a line of titles. */
static void read_data(const char *path) {
  static const char *const species[3] = {"setosa", "versicolor", "virginica"};
  char name[32];
  FILE *file = fopen(path, "r");
  if (file == NULL || fscanf(file, "%*[^\n]") == EOF) {
    fprintf(stderr, "%s: cannot be read\n", path);
    exit(1);
  }
  for (int b = 0; b < IRIS_HIDDEN_BATCH; b++) {
    float *row = x + 4 * b;
    if (fscanf(file, "%f,%f,%f,%f,%31s", row, row + 1, row + 2, row + 3, name) != 5) {
      fprintf(stderr, "%s: expected %d rows, found %d\n", path, IRIS_HIDDEN_BATCH, b);
      exit(1);
    }
    for (int k = 0; k < 3; k++)
      y[3 * b + k] = strcmp(name, species[k]) == 0;
  }
  fclose(file);
}

static void fill(float *p, int count) {
  for (int i = 0; i < count; i++)
    p[i] = 0.02f * ((float)rand() / (float)RAND_MAX - 0.5f);
}

static int largest(const float *row) { return row[0] >= row[1] && row[0] >= row[2] ? 0 : row[1] >= row[2] ? 1 : 2; }

int main(int argc, char **argv) {
  const int steps = argc > 2 ? atoi(argv[2]) : 1000;
  int right = 0;
  float loss = 0.0f;
  read_data(argc > 1 ? argv[1] : "catgrad_hw/workloads/iris.csv");
  fill(p0, IRIS_HIDDEN_P0);
  fill(p1, IRIS_HIDDEN_P1);
  fill(p2, IRIS_HIDDEN_P2);
  fill(p3, IRIS_HIDDEN_P3);
  for (int step = 0; step < steps; step++)
    iris_hidden_step(p0, p1, p2, p3, x, y, &scratch);
  iris_hidden_predict(p0, p1, p2, p3, x, yhat, &scratch);
  for (int b = 0; b < IRIS_HIDDEN_BATCH; b++)
    right += largest(yhat + 3 * b) == largest(y + 3 * b);
  for (int i = 0; i < IRIS_HIDDEN_Y; i++)
    loss += 0.5f * (yhat[i] - y[i]) * (yhat[i] - y[i]);
  printf("accuracy: %.1f %%, loss: %.4f\n", 100.0 * right / IRIS_HIDDEN_BATCH, loss);
  return 0;
}
