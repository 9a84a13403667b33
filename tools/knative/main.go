// Plays to Knative's own autoscaler what a simulated one saw, and prints what it decides:
//
//	cd tools/knative && go run . < ../../tests/bench/scaling/knative_decisions.json
//
// Each play has the settings and rows of seconds, the average concurrency over the stable and the panic window, ready
// pods and, last, the decision; what is printed has the same form.
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/autoscaler/scaling"
)

type play struct {
	Settings map[string]float64 `json:"settings"`
	Rows     [][5]float64       `json:"rows"`
}

// world is what the autoscaler looks at: one row.
type world struct{ row [5]float64 }

func (w *world) StableAndPanicConcurrency(types.NamespacedName, time.Time) (float64, float64, error) {
	return w.row[1], w.row[2], nil
}

func (w *world) StableAndPanicRPS(types.NamespacedName, time.Time) (float64, float64, error) {
	return 0, 0, nil
}

func (w *world) ReadyCount() (int, error) { return int(w.row[3]), nil }

func (w *world) NotReadyCount() (int, error) { return 0, nil }

func seconds(value float64) time.Duration { return time.Duration(value * float64(time.Second)) }

func decide(settings map[string]float64, rows [][5]float64) {
	seen := &world{}
	spec := &scaling.DeciderSpec{
		MaxScaleUpRate:   settings["max_scale_up_rate"],
		MaxScaleDownRate: settings["max_scale_down_rate"],
		ScalingMetric:    "concurrency",
		TargetValue:      settings["target"],
		TotalValue:       settings["target"],
		PanicThreshold:   settings["panic_threshold"],
		StableWindow:     seconds(settings["stable_window_seconds"]),
		ScaleDownDelay:   seconds(settings["scale_down_delay_seconds"]),
		Reachable:        true,
	}
	scaler := scaling.New(context.Background(), "default", "workers", seen, seen, spec)
	start := time.Unix(1_700_000_000, 0)
	for index := range rows {
		seen.row = rows[index]
		result := scaler.Scale(zap.NewNop().Sugar(), start.Add(seconds(seen.row[0])))
		rows[index][4] = float64(result.DesiredPodCount)
	}
}

func main() {
	var plays []play
	if err := json.NewDecoder(os.Stdin).Decode(&plays); err != nil {
		panic(err)
	}
	for _, each := range plays {
		decide(each.Settings, each.Rows)
	}
	if err := json.NewEncoder(os.Stdout).Encode(plays); err != nil {
		panic(err)
	}
}
